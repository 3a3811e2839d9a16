"""Running only the end of a network: the same numbers, whatever a module does to its inputs."""

import pytest

from netweight.archive import Archive
from netweight.checkpoint import open_checkpoint
from netweight.pipeline import compress
from netweight.prefix import Prefix
from netweight.trial import Trial, mean

torch = pytest.importorskip("torch")
nn = torch.nn


class Counted(nn.Linear):
    """Knows how often it ran."""

    def __init__(self) -> None:
        super().__init__(6, 6)
        self.ran = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.ran += 1
        return super().forward(x)


class Residual(nn.Module):
    """Adds to its input in place, as many networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.add_(self.second(torch.relu_(self.first(x))))


class Twice(nn.Module):
    """Calls its layer two times, before and after another."""

    def __init__(self) -> None:
        super().__init__()
        self.shared, self.between = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.shared(torch.tanh(self.between(torch.tanh(self.shared(x)))))


NETWORKS = {
    "chain": lambda: nn.Sequential(*(Counted() for _ in range(12))),
    "in place": lambda: nn.Sequential(nn.Linear(6, 6), *(Residual() for _ in range(4)), nn.Linear(6, 6)),
    "twice": lambda: nn.Sequential(nn.Linear(6, 6), Twice(), nn.Linear(6, 6)),
}


@pytest.fixture(params=NETWORKS)
def model(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]()


def _archive(model: nn.Module) -> Archive:
    return compress(model, slope=1e-3, codecs=["uniform"])


def test_a_layer_alone_costs_what_the_whole_network_says(model):
    archive, groups = _archive(model), [[name] for name, _ in model.named_parameters()]
    groups.append([name for group in groups[-3:] for name in group])
    batches = [torch.randn(5, 6) for _ in range(2)]
    trial = Trial(model, open_checkpoint(model), "kl", None)
    found = trial.alone([batch.clone() for batch in batches], archive, groups)
    for names, nats in zip(groups, found, strict=True):
        # A network that adds to its input in place must get a new one each time.
        one = Trial(model, open_checkpoint(model), "kl", lambda m, x: m(x.clone()))
        assert nats == mean(one.nats(batches, archive, names))[0]
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_nothing_runs_before_the_change():
    model = NETWORKS["chain"]()
    prefix, x = Prefix.of(model), torch.randn(3, 6)
    with torch.no_grad(), prefix.recording():
        model(x)
    with torch.no_grad(), prefix.skipping([model[7].bias]):
        model(x)
    assert [layer.ran for layer in model] == [1] * 7 + [2] * 5


def test_what_cannot_be_skipped_runs():
    model = NETWORKS["chain"]()
    prefix, x, foreign = Prefix.of(model), torch.randn(3, 6), torch.zeros(1)
    with torch.no_grad(), prefix.recording():
        model(x)
    for changed in ([foreign], [model[3].weight, foreign], [model[0].weight, model[9].weight]):
        before = [layer.ran for layer in model]
        with torch.no_grad(), prefix.skipping(changed):
            model(x)
        assert [layer.ran for layer in model] == [ran + 1 for ran in before]


def test_a_forward_of_ones_own_comes_back():
    model = NETWORKS["chain"]()
    own = model[0].forward = model[0].forward
    prefix, x = Prefix.of(model), torch.randn(3, 6)
    with torch.no_grad(), prefix.recording():
        model(x)
    with torch.no_grad(), prefix.skipping([model[5].weight]):
        assert model[0].forward is not own
    assert model[0].forward is own


def test_a_pass_that_is_stopped_gives_what_was_measured():
    model = NETWORKS["chain"]()
    archive, groups = _archive(model), [[f"{j}.weight"] for j in range(12)]
    asked = iter([False] * 4 + [True] * 30)
    found = Trial(model, open_checkpoint(model), "kl", None).alone(
        [torch.randn(5, 6)], archive, groups, lambda: next(asked)
    )
    assert [nats is None for nats in found] == [False] * 4 + [True] * 8
