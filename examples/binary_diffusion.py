"""A diffusion U-Net with weights of several binary bases: digits, the noise that is added to them, and who finds it.

python examples/binary_diffusion.py [steps] [scheme ...]
weft run examples/binary_diffusion.py:unet --scheme binarydm --arch bnn-vu9p

DDPM (Ho et al., arXiv 2006.11239): x_t = sqrt(a_t) x + sqrt(1 - a_t) e with a_t = prod (1 - b), b from 1e-4 to 0.02
over 1,000 times, here from 1e-3 to 0.2 over 100; the network is told x_t and t and is to say e. The first and the last
convolution stay real, and blocks have the shortcuts that binary layers need. `weft train` trains classifiers, so the
loop is written out.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional

from weft.workloads.data import open_data
from weft.workloads.schemes import attach

TIMES, WIDTH = 100, 32
KEPT = torch.cumprod(1 - torch.linspace(1e-3, 0.2, TIMES, device="cpu"), 0)
"""a_t, float32 [times]."""


class Block(nn.Module):
    """Two convolutions, told the time between them, around a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(WIDTH, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norms = nn.ModuleList((nn.GroupNorm(4, inputs), nn.GroupNorm(4, outputs)))
        self.short = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.first(functional.silu(self.norms[0](x))) + self.time(time)[:, :, None, None]
        found: Tensor = self.short(x) + self.second(functional.silu(self.norms[1](y)))
        return found


class UNet(nn.Module):
    """Two scales, 8 x 8 and 4 x 4."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.down, self.middle = Block(WIDTH, 2 * WIDTH), Block(2 * WIDTH, 2 * WIDTH)
        self.up = Block(2 * WIDTH + WIDTH, WIDTH)
        self.leave = nn.Conv2d(WIDTH, 1, 3, padding=1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        waves = time[:, None] * torch.exp(-torch.arange(WIDTH // 2, device=x.device) * (6.0 / (WIDTH // 2)))
        told = torch.cat((waves.sin(), waves.cos()), 1)
        high = self.enter(x)
        low = self.middle(self.down(functional.avg_pool2d(high, 2), told), told)
        wide = functional.interpolate(low, scale_factor=2.0)
        found: Tensor = self.leave(functional.silu(self.up(torch.cat((wide, high), 1), told)))
        return found


def unet(batch: int = 64) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """The network and what it is told, for a step on the machine."""
    return UNet(), (torch.zeros(batch, 1, 8, 8), torch.zeros(batch))


def noised(x: Tensor, made: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """x_t, t and e of digits [n, 1, 8, 8], float32."""
    time = torch.randint(0, TIMES, (len(x),), generator=made)
    noise = torch.randn(x.shape, generator=made)
    kept = KEPT[time][:, None, None, None]
    return kept.sqrt() * x + (1 - kept).sqrt() * noise, time.float(), noise


def trained(scheme: str, steps: int) -> float:
    """Mean squared error of the noise of the test digits, ten times over, after a training under ``scheme``."""
    torch.manual_seed(0)
    data = open_data("digits")
    digits, unseen = (2 * images.pixels.float() / images.pixels.max() - 1 for images in (data.train, data.test))
    model, made = UNet(), torch.Generator().manual_seed(1)
    technique = attach(model, scheme, None, steps=steps)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for step in range(steps):
        technique.before_step(step)
        optimizer.zero_grad()
        x, time, noise = noised(digits[torch.randint(0, len(digits), (64,), generator=made)], made)
        functional.mse_loss(model(x, time), noise).backward()
        technique.adjust_gradients(step)
        optimizer.step()
        technique.after_step(step, optimizer)
    model.eval()
    with torch.no_grad():
        x, time, noise = noised(unseen.repeat(10, 1, 1, 1), torch.Generator().manual_seed(2))
        return float(functional.mse_loss(model(x, time), noise))


if __name__ == "__main__":
    torch.set_num_threads(1)
    steps, schemes = int(next(iter(sys.argv[1:2]), "1000")), sys.argv[2:] or ["dense", "binarydm", "bitnet"]
    for scheme in schemes:
        print(f"{scheme:9} error of the noise {trained(scheme, steps):.3f} (1.0: says nothing)", flush=True)
