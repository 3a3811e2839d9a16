"""Are trained weights Laplacian? Layers of real networks against Gaussian, Laplacian and generalised Gaussian laws."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from safetensors import safe_open

from experiments.figures import Result, begun, holds, options, write
from netweight.theory import compressibility
from netweight.theory.scalar import GeneralizedGaussian

SMALLEST = 1000


def layers(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Every weight tensor of at least two axes and 1000 entries below `data`."""
    for path in sorted(data.rglob("*.safetensors")):
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                shape = file.get_slice(name).get_shape()
                if (
                    len(shape) >= 2
                    and np.prod(shape) >= SMALLEST
                    and file.get_slice(name).get_dtype() in ("F32", "F16")
                ):
                    yield f"{path.parent.name}/{path.stem}/{name}", file.get_tensor(name).astype(np.float64).ravel()


def distance(law: GeneralizedGaussian, ordered: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance between a law and sorted samples."""
    steps = np.arange(ordered.size + 1) / ordered.size
    at = law.cdf(ordered)
    return float(max(np.abs(at - steps[:-1]).max(), np.abs(at - steps[1:]).max()))


def by_network(rows: Sequence[tuple[object, ...]]) -> str:
    """Layers won by the Laplacian in each network."""
    won: dict[str, list[bool]] = {}
    for row in rows:
        network = str(row[0]).split("/")[1 if "/model/" not in str(row[0]) else 0]
        won.setdefault(network, []).append(float(str(row[6])) > float(str(row[5])))
    return ", ".join(f"{network} {sum(w)}/{len(w)}" for network, w in won.items())


def run(data: Path, seed: int) -> Result | None:
    """Fit three laws to every layer; None where there are no networks."""
    rng = np.random.default_rng(seed)
    rows, pooled = [], []
    for name, w in layers(data):
        x = np.sort(w / w.std())
        x = np.sort(rng.choice(x, 200_000)) if x.size > 200_000 else x
        laplace = GeneralizedGaussian(1.0, float(np.abs(x).mean()))
        gauss, fitted = GeneralizedGaussian.gaussian(float(np.mean(x * x))), GeneralizedGaussian.fit(x)
        likelihoods = [float(law.log_density(x).mean()) / np.log(2) for law in (gauss, laplace, fitted)]
        distances = [distance(law, x) for law in (gauss, laplace, fitted)]
        rows.append((name, w.size, *distances, *likelihoods, fitted.shape, compressibility.pq_index(x)))
        pooled.append(rng.choice(x, 2000))
    if not rows:
        return None
    table = list(zip(*rows, strict=True))
    gain = np.array(table[6]) - np.array(table[5])
    wins = int((gain > 0).sum())
    shapes = np.array(table[8])

    def draw(axes: Sequence[Axes]) -> None:
        sample = np.concatenate(pooled)
        axes[0].hist(sample, bins=121, range=(-6, 6), density=True, color="0.8", label="weights / layer deviation")
        grid = np.linspace(-6, 6, 401)
        for label, law in (("Gaussian", GeneralizedGaussian.gaussian()), ("Laplacian", GeneralizedGaussian.laplace())):
            axes[0].plot(grid, np.exp(law.log_density(grid)), label=label)
        axes[0].set(xlabel="normalised weight", ylabel="density", yscale="log", ylim=(1e-4, 2))
        axes[0].legend()
        axes[1].plot(shapes, gain, "o", markersize=3)
        axes[1].axhline(0, color="0.4", linewidth=0.8)
        axes[1].axvline(1, color="0.4", linewidth=0.8, linestyle=":")
        axes[1].axvline(2, color="0.4", linewidth=0.8, linestyle=":")
        axes[1].set(xlabel="fitted shape (1 Laplacian, 2 Gaussian)", ylabel="Laplacian over Gaussian, bits a weight")

    names = ("layer", "weights", "ks_gaussian", "ks_laplacian", "ks_fitted", "log2_gaussian", "log2_laplacian")
    columns: dict[str, Sequence[object]] = dict(zip((*names, "log2_fitted", "shape", "pq_index"), table, strict=True))
    return Result(
        columns,
        draw,
        holds(
            wins > len(rows) / 2,
            f"the Laplacian is likelier than the Gaussian in {wins} of {len(rows)} layers ({by_network(rows)}); fitted "
            f"shape {np.quantile(shapes, 0.1):.2f} to {np.quantile(shapes, 0.9):.2f} (10 to 90 %), median "
            f"{np.median(shapes):.2f}: choose the law by tensor",
        ),
        panels=2,
    )


def main() -> None:
    """Command line; a missing --data is said loudly and is not an error."""
    arguments = options("laplacian_weights", data=True).parse_args()
    print(f"laplacian_weights: {report(arguments.data, arguments.seed, arguments.out)}")


def report(data: Path, seed: int, out: Path) -> str:
    """Run, write the files, and return the line of verdict or of the skip."""
    made_by = begun()
    result = run(data, seed)
    if result is None:
        return f"SKIPPED: no .safetensors file below {data}; give a folder of trained networks with --data"
    write("laplacian_weights", result, seed, out, made_by=made_by())
    return result.verdict


if __name__ == "__main__":
    main()
