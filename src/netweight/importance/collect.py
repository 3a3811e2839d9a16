"""One pass over the data: hooks on every module that holds weights, sums of what they see."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from netweight.errors import UsageError
from netweight.importance.accumulate import MatrixSums, VectorSums
from netweight.importance.blocks import Replay, can_replay, replay
from netweight.importance.cotangents import Head
from netweight.importance.maps import Map, by_sample, map_of
from netweight.importance.norms import is_norm, norm_gradients
from netweight.importance.packed import Collected, PackedSums
from netweight.importance.pooling import Pooling
from netweight.importance.samples import Batch, output_of
from netweight.importance.sites import axis_of, covered, flat, join, listen, send, shapes_of, version_of

__all__ = ["Collector"]

Forward = Callable[[nn.Module, Any], Any]


@dataclass(slots=True)
class _Call:
    """A call of a module that is computed again after the pass."""

    replay: Replay
    gradient: Tensor | None = None


@dataclass(slots=True)
class _Pass:
    """What belongs to the batch at work."""

    batch: Batch
    roots: list[Tensor] = field(default_factory=list)
    calls: list[tuple[str, nn.Module, _Call]] = field(default_factory=list)


class Collector:
    """Sums of a model's statistics.

    Args:
        model: in evaluation mode (`untouched`).
        head: the loss.
        forward: calls the model on a batch.
        exact: collect squared gradients of each weight instead of second moments.
        wanted: whether a tensor of this name is to be measured.
        largest: columns up to which a matrix is kept.
        full: rows up to which a matrix is kept.
        mu: added to each prediction's squares.
        whole: take the moments of whole gradients where a sample has several positions.
    """

    def __init__(
        self,
        model: nn.Module,
        head: Head,
        forward: Forward,
        *,
        exact: bool,
        wanted: Callable[[str], bool],
        largest: int,
        full: int,
        mu: float = 0.0,
        whole: bool = False,
    ) -> None:
        self.model, self.head, self.forward = model, head, forward
        self.exact, self.mu, self.largest, self.full, self.whole = exact, mu, largest, full, whole
        self.matrices: dict[str, dict[int, MatrixSums]] = {}
        self.vectors = VectorSums()
        self.samples, self.predictions, self.data = 0, 0.0, 0
        everything = list(model.named_parameters(remove_duplicate=False))
        self._names = {id(p): n for n, p in reversed(everything)}
        self._owners = {n: self._names[id(p)] for n, p in everything}
        self._wanted = wanted
        self._sites = {path: m for path, m in model.named_modules() if self._holds(path, m)}
        known = {self._own(name) for path, m in model.named_modules() for name in covered(path, m)}
        self._others = {
            n: p for n, p in model.named_parameters() if n not in known and wanted(n) and p.is_floating_point()
        }  # fmt: skip
        self._singles = self._probed = False
        self._axes: dict[str, int | None] = {}
        self._now: _Pass | None = None
        widths = {layer.columns for m in self._sites.values() if (layer := map_of(m)) is not None and layer.groups == 1}
        self._pooling = Pooling(widths)

    def _own(self, name: str) -> str:
        """Name of the tensor that a name stands for."""
        return self._owners.get(name, name)

    def _holds(self, path: str, module: nn.Module) -> bool:
        return any(self._wanted(self._own(name)) for name in covered(path, module))

    def add(self, batch: Batch) -> None:
        """Measure one batch; one sample at a time where a parameter is in no layer that the formulas know."""
        if not self._probed and (batch.count > 1 or self.exact):
            self._probe(batch)
        one_by_one = batch.count > 1 and (self._singles or bool(self._others))
        for part in batch.singles() if one_by_one else (batch,):
            self._add(part)

    def _probe(self, batch: Batch) -> None:
        """Compare a batch with its first sample, nothing measured: where is the axis of samples, what is used twice?

        The square of a sample's gradient needs all its parts. Where samples cannot be told apart only random vectors
        of mean zero may be summed over them.
        """
        self._probed = batch.count > 1
        whole, z = shapes_of(self.model, self._sites, self.forward, batch.value)
        first, _ = shapes_of(self.model, self._sites, self.forward, next(batch.singles()).value)
        summable = self.head.random(output_of(z))
        for path, shapes in whole.items():
            if batch.count > 1 and path in first:
                self._axes[path] = axis_of(shapes[0], first[path][0])
                self._singles |= self._axes[path] is None and not summable
        if self.exact:
            uses: dict[str, int] = {}
            for path, shapes in whole.items():
                for name in covered(path, self._sites[path]):
                    uses[self._own(name)] = uses.get(self._own(name), 0) + len(shapes)
            parameters = dict(self.model.named_parameters())
            self._others |= {n: parameters[n] for n, times in uses.items() if times > 1 and n in parameters}

    def _add(self, batch: Batch) -> None:
        self._now = _Pass(batch)
        handles = [m.register_forward_hook(self._hook(path), with_kwargs=True) for path, m in self._sites.items()]
        try:
            for parameter in self._others.values():
                parameter.requires_grad_(True)
            with self._pooling:
                z = output_of(self.forward(self.model, batch.value))
            if not z.requires_grad:
                raise UsageError(
                    "No layer that could be measured leads to the model's output.",
                    "Pass a model with weights of its own.",
                )
            targets = [*self._now.roots, *self._others.values()]
            for u in self.head.vectors(z, batch):
                found = send(z, u, targets)
                self._after_pass(found[len(self._now.roots) :])
            self.samples += batch.count
            self.predictions += self.head.predictions(z, batch)
            self.data += batch.data
        finally:
            for handle in handles:
                handle.remove()
            for parameter in self._others.values():
                parameter.requires_grad_(False)
            self._now = None
            self._pooling.forget()

    def _after_pass(self, gradients: Sequence[Tensor | None]) -> None:
        assert self._now is not None
        for name, gradient in zip(self._others, gradients, strict=True):
            if gradient is not None:
                self.vectors.add(name, gradient.detach()[None])
        for path, module, call in self._now.calls:
            if call.gradient is not None:
                self._send_through(path, module, call)
                call.gradient = None
        self.vectors.flush()

    def _hook(self, path: str) -> Callable[..., Any]:
        def watch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
            many = isinstance(output, tuple)
            y = output[0] if many else output
            if not isinstance(y, Tensor):
                raise UsageError(
                    f"The module {path!r} returned {type(y).__name__}, no tensor.", "Leave it out by `names`, or pad."
                )
            if not y.requires_grad:  # the first module on its way: gradients end here
                root = y.detach().requires_grad_()
                assert self._now is not None
                self._now.roots.append(root)
                y = root.clone()  # may be changed in place, which a leaf may not
            self._watch(path, module, args, kwargs, y)
            return (y, *output[1:]) if many else y

        return watch

    def _watch(self, path: str, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], y: Tensor) -> None:
        assert self._now is not None
        batch = self._now.batch
        if can_replay(module):
            call = _Call(replay(module, args, kwargs))
            self._now.calls.append((path, module, call))
            for inner in call.replay.inner:
                sums = self._matrix(
                    path, module, inner.weight, inner.start, inner.input.shape[-1], inner.output.shape[-1]
                )
                if sums is not None:
                    x = inner.input.transpose(0, 1) if inner.time_first else inner.input
                    sums.add_inputs(x, batch.count, batch.halves, batch.mask)

            def keep(g: Tensor) -> None:
                call.gradient = g if call.gradient is None else call.gradient + g

            listen(y, keep)
            return
        x = args[0] if args else next(iter(kwargs.values()))
        version = version_of(x)
        sums = self._matrix(path, module, "weight", 0)
        if sums is not None:
            sums.add_inputs(x, batch.count, batch.halves, batch.mask, self._pooling.behind(x))
        held = x if is_norm(module) or (sums is not None and (sums.exact or sums.whole)) else None

        def backward(g: Tensor) -> None:
            if held is not None and version_of(held) != version:
                raise UsageError(f"The model changes the input of {path!r} in place.", "Leave it out by `names`.")
            if sums is not None:
                sums.add_gradients(g, held, batch.count, batch.halves)
            self._vectors_of(path, module, held, g, batch.count)

        listen(y, backward)

    def _vectors_of(self, path: str, module: nn.Module, x: Tensor | None, g: Tensor, count: int) -> None:
        """Gradients of a bias, or of a norm's tensors."""
        if is_norm(module):
            assert x is not None
            for name, gradients in norm_gradients(module, x, g, count, self._axes.get(path, 0)):
                self._vector(path, module, name, gradients)
        elif isinstance(module._parameters.get("bias"), Tensor):
            layer = map_of(module)
            assert layer is not None
            items = by_sample(g.detach().float(), count, layer.item, self._axes.get(path, 0))
            self._vector(path, module, "bias", items.flatten(3).sum((1, 3)) if layer.item > 1 else items.sum(1))

    def _vector(self, path: str, module: nn.Module, name: str, gradients: Tensor, start: int = 0) -> None:
        own = self._own(join(path, name))
        if self._wanted(own) and own not in self._others:
            tensor: Any = module.get_parameter(name) if "." in name else getattr(module, name)
            if gradients.shape[1:] != tensor.shape:  # a part of packed biases
                whole = gradients.new_zeros(len(gradients), *tensor.shape)
                whole[:, start : start + gradients.shape[1]] = gradients
                gradients = whole
            self.vectors.add(own, gradients)

    def _send_through(self, path: str, module: nn.Module, call: _Call) -> None:
        """Take the gradient at a replayed module's output to its inner maps."""
        assert self._now is not None
        batch, inner = self._now.batch, call.replay.inner
        assert call.gradient is not None
        found = send(call.replay.output, call.gradient, [each.output for each in inner])
        for each, g in zip(inner, found, strict=True):
            if g is None:
                continue
            x, g = (t.transpose(0, 1) if each.time_first else t for t in (each.input, g))
            sums = self._matrix(path, module, each.weight, each.start)
            if sums is not None:
                sums.add_gradients(g, x, batch.count, batch.halves)
            if each.bias:
                gradients = by_sample(g.float(), batch.count, 1).sum(1)
                self._vector(path, module, each.bias, gradients, each.bias_start)

    def _matrix(
        self, path: str, module: Any, name: str, start: int, columns: int = 0, rows: int = 0
    ) -> MatrixSums | None:
        """Sums of a weight, or of a part of one; None where it is not wanted."""
        tensor: Any = module.get_parameter(name) if "." in name else module._parameters.get(name)
        if tensor is None or is_norm(module):
            return None
        own = self._own(join(path, name))
        if not self._wanted(own) or own in self._others:
            return None
        key = f"{own}\n{join(path, name)}"  # a tensor has a use for each module that holds it
        found = self.matrices.setdefault(key, {})
        if start not in found:
            layer = map_of(module) if not rows else Map(rows, columns, 1, False, False, 1, flat, flat)
            assert layer is not None
            shape = tuple(tensor.shape) if not rows else (rows, columns)
            axis = 0 if rows else self._axes.get(path, 0)
            found[start] = MatrixSums(
                layer, shape, self.exact or layer.columns > self.largest, axis, self.full, self.whole
            )
        return found[start]

    def sums(self) -> Collected:
        """Give what was collected, in the order of the model's tensors; what no gradient reached is left out."""
        found: dict[str, list[tuple[PackedSums, ...]]] = {}
        for key, parts in self.matrices.items():
            seen = tuple(self._raised(parts[start].sums()) for start in sorted(parts) if parts[start].seen)
            if len(seen) == len(parts):
                found.setdefault(key.split("\n")[0], []).append(seen)
        for name, total in self.vectors.totals.items():
            squares = total.cpu().double().numpy()
            found.setdefault(name, []).append((self._raised(PackedSums(tuple(squares.shape), diagonal=squares)),))
        order = [n for n, _ in self.model.named_parameters()] + [n for n, _ in self.model.named_buffers()]
        return Collected({name: tuple(found[name]) for name in order if name in found})

    def _raised(self, use: PackedSums) -> PackedSums:
        if not self.mu or use.diagonal is None:
            return use
        return replace(use, diagonal=use.diagonal + self.mu * self.predictions)
