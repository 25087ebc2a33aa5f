"""Run the conformance suite of networks on every network."""

import torch
from torch import nn

from conformance.networks import ModuleNetworkTests, NetworkTests
from supsup_core.networks.conv import conv4, small_conv
from supsup_core.networks.mlp import mlp
from supsup_core.networks.resnet import ResNet
from supsup_core.networks.units import units


class TestMLP(NetworkTests):
    def make(self):
        return mlp((2, 4, 4), 5, hidden=[7, 6])


class TestDeepMLPWithNormalWeights(NetworkTests):
    def make(self):
        return mlp((2, 4, 4), 5, hidden=[7] * 8, init="kaiming_normal")


class TestUnits(NetworkTests):
    def make(self):
        return units((2, 4, 4), 5, hidden=[7, 6])


class TestSmallConv(ModuleNetworkTests):
    def make_module(self):
        return small_conv(self.input_shape, 5, channels=(3, 4))


class TestConv4(ModuleNetworkTests):
    input_shape = (1, 4, 4)

    def make_module(self):
        return conv4(self.input_shape, 5)


class TestResNetOfBasicBlocks(ModuleNetworkTests):
    input_shape = (2, 6, 6)

    def make_module(self):
        options = {"width": 3, "stem": "small", "norm": "batch", "init": "signed_constant"}
        return ResNet(self.input_shape, 5, "basic", (1, 2), **options)


class TestResNetOfBottleneckBlocks(ModuleNetworkTests):
    input_shape = (2, 16, 16)

    def make_module(self):
        options = {"width": 3, "stem": "large", "norm": "batch", "init": "signed_constant"}
        return ResNet(self.input_shape, 5, "bottleneck", (2, 1), **options)


class TestPlainModule(ModuleNetworkTests):
    input_shape = (7,)

    def make_module(self):
        return nn.Sequential(nn.Linear(7, 6, bias=False), nn.ReLU(), nn.Linear(6, 4, bias=False))


class Residual(nn.Module):
    """A module with one convolution used twice, groups, dropout, affine norms and buffers."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(4, momentum=0.3) for _ in range(2))
        self.folded = nn.Conv2d(4, 4, 3, padding=1, groups=2, bias=False)
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5, bias=False)
        self.register_buffer("turn", torch.randn(4, 1, 1))
        self.register_buffer("order", torch.tensor([2, 0, 3, 1]))

    def forward(self, x):
        x = self.stem(x) + self.turn
        for norm in self.norms:
            x = x + self.dropout(torch.nn.functional.silu(norm(self.folded(x))))[:, self.order]
        return self.head(x.mean((2, 3)))


class TestResidual(ModuleNetworkTests):
    input_shape = (2, 5, 5)

    def make_module(self):
        return Residual()


class TestModuleWithoutStatistics(ModuleNetworkTests):
    input_shape = (7,)

    def make_module(self):
        return nn.Sequential(
            nn.Linear(7, 6, bias=False),
            nn.BatchNorm1d(6, track_running_stats=False),
            nn.Tanh(),
            nn.Linear(6, 4, bias=False),
        )
