"""Small networks of every kind of layer, and their Fisher information by brute force."""

import torch
from torch import nn


class Mean(nn.Module):
    def forward(self, x):
        return x.mean(1)


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.r = kind(5, 6, **options)
        self.first = options.get("batch_first", False)
        self.l = nn.Linear(12 if options.get("bidirectional") else 6, 3)

    def forward(self, x):
        y, _ = self.r(x if self.first else x.transpose(0, 1))
        return self.l(torch.tanh(y if self.first else y.transpose(0, 1)).mean(1))


class Attention(nn.Module):
    def __init__(self, position=False, **options):
        super().__init__()
        self.position = nn.Parameter(torch.randn(4, 8)) if position else None
        self.first = options.get("batch_first", False)
        self.a, self.n, self.l = nn.MultiheadAttention(8, 2, **options), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x):
        x = x if self.position is None else x + self.position
        x = x if self.first else x.transpose(0, 1)
        y = self.n(x + self.a(x, x, x)[0])
        return self.l((y if self.first else y.transpose(0, 1)).mean(1))


class Cross(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.l = nn.MultiheadAttention(8, 2, kdim=5, vdim=6, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.l(self.a(x, x[..., :5], x[..., 2:])[0].mean(1))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.l, self.o = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        return self.o(torch.tanh(self.l(torch.tanh(self.l(x)))))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.e, self.h, self.o = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 7, bias=False)
        self.o.weight = self.e.weight

    def forward(self, x):
        return self.o(torch.tanh(self.h(self.e(x))).mean(1))


class Positions(nn.Module):
    """An embedding that never sees the samples' axis."""

    def __init__(self):
        super().__init__()
        self.e, self.o = nn.Embedding(4, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.o(torch.tanh(x + self.e(torch.arange(4))).mean(1))


class Conv1D(nn.Module):
    """The linear layer of GPT-2: its weight is stored transposed."""

    def __init__(self, nf, nx):
        super().__init__()
        self.nf, self.weight, self.bias = nf, nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x):
        return x @ self.weight + self.bias


def networks():
    """Name to (network, samples)."""
    torch.manual_seed(0)
    flat = nn.Flatten
    found = {
        "perceptron": (nn.Sequential(nn.Linear(6, 5), nn.ReLU(True), nn.Linear(5, 3)), torch.randn(7, 6)),
        "convolutions": (
            nn.Sequential(
                nn.Conv2d(3, 6, 3, padding=1, stride=2, bias=False), nn.BatchNorm2d(6), nn.ReLU(True),
                nn.Conv2d(6, 6, 3, groups=3, dilation=2, padding="same"), nn.GroupNorm(2, 6),
                nn.Conv2d(6, 6, 3, groups=6), flat(), nn.Linear(24, 3),
            ),
            torch.randn(5, 3, 8, 8),
        ),
        "circular": (
            nn.Sequential(
                nn.Conv1d(3, 6, 4, padding=2, padding_mode="circular"), nn.Tanh(), nn.Conv1d(6, 4, 3), flat(),
                nn.Linear(28, 3),
            ),
            torch.randn(5, 3, 8),
        ),
        "volumes": (
            nn.Sequential(nn.Conv3d(2, 3, (2, 3, 1), stride=(1, 2, 1)), flat(), nn.Linear(72, 2)),
            torch.randn(4, 2, 4, 5, 4),
        ),
        "transposed": (
            nn.Sequential(
                nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), nn.Tanh(),
                nn.ConvTranspose2d(6, 2, 2, dilation=2), flat(), nn.Linear(200, 3),
            ),
            torch.randn(4, 4, 4, 4),
        ),
        "transposed1": (nn.Sequential(nn.ConvTranspose1d(3, 2, 3), flat(), nn.Linear(12, 3)), torch.randn(4, 3, 4)),
        "transposed3": (
            nn.Sequential(nn.ConvTranspose3d(2, 2, 2), flat(), nn.Linear(54, 3)), torch.randn(4, 2, 2, 2, 2)
        ),
        "embedding": (
            nn.Sequential(nn.Embedding(11, 6), nn.Linear(6, 5), nn.RMSNorm(5), Mean(), nn.Linear(5, 3)),
            torch.randint(0, 11, (6, 4)),
        ),
        "lstm": (Recurrent(nn.LSTM, num_layers=2, bidirectional=True, batch_first=True), torch.randn(5, 4, 5)),
        "gru": (Recurrent(nn.GRU, num_layers=2), torch.randn(5, 5, 5)),
        "attention": (Attention(batch_first=True), torch.randn(5, 4, 8)),
        "attention by time": (Attention(), torch.randn(5, 4, 8)),
        "attention with positions": (Attention(True, batch_first=True), torch.randn(5, 4, 8)),
        "cross attention": (Cross(), torch.randn(5, 4, 8)),
        "twice": (Twice(), torch.randn(5, 6)),
        "tied": (Tied(), torch.randint(0, 7, (6, 4))),
        "positions": (Positions(), torch.randn(6, 4, 8)),
        "gpt": (nn.Sequential(Conv1D(5, 6), nn.Tanh(), Mean(), Conv1D(3, 5)), torch.randn(5, 4, 6)),
        "prelu": (nn.Sequential(nn.Linear(6, 5), nn.PReLU(5), nn.Linear(5, 3)), torch.randn(7, 6)),
    }  # fmt: skip
    for model, _ in found.values():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_var.uniform_(0.5, 2)
                module.running_mean.normal_()
        model.eval()
    return found


def roots(z, temperature=1.0):
    """Vectors u with sum u u^T = diag p - p p^T."""
    p = torch.softmax(z.detach() / temperature, -1).reshape(-1)
    for c in range(p.numel()):
        u = -p * p[c].sqrt()
        u[c] += p[c].sqrt()
        yield (u / temperature).reshape(z.shape)


def brute_fisher(model, samples, temperature=1.0):
    """Mean over samples of sum_c p_c (d ln p_c / dw)^2, one sample at a time."""
    parameters, out = dict(model.named_parameters()), {}
    for x in samples:
        z = model(x[None])
        for u in roots(z, temperature):
            for name, g in zip(
                parameters,
                torch.autograd.grad(z, parameters.values(), u, retain_graph=True, allow_unused=True),
                strict=True,
            ):
                if g is not None:
                    out[name] = out.get(name, 0) + g.double().square() / len(samples)
    return {name: total.numpy() for name, total in out.items()}
