"""A language model of characters on this project's own pages, under schemes of few values: bits a character.

A decoder of two blocks reads 64 characters and says what each is followed by. It is trained on every page but each
tenth, and tested on those. Beside the schemes stand what letter frequencies and pairs of letters reach.

python examples/language.py
python examples/language.py --schemes dense,bitnet,tbt-binary,tbt-ternary,bivit --steps 3000
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

import weft
from weft.workloads.schemes import attach

PAGES = sorted((Path(__file__).parents[1] / "docs").rglob("*.md"))
LENGTH, BATCH, WIDTH, HEADS, BLOCKS, RATE = 64, 32, 64, 4, 2, 2e-3


class Block(nn.Module):
    """Causal attention and a wider layer, each behind a norm and around it a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.between = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.before(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.between(x))))


class Characters(nn.Module):
    """Scores of the next character, [batch, length, letters] of letters [batch, length]."""

    def __init__(self, letters: int) -> None:
        super().__init__()
        self.letters, self.places = nn.Embedding(letters, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, letters)

    def forward(self, text: Tensor) -> Tensor:
        x = self.letters(text) + self.places(torch.arange(text.shape[1], device=text.device))
        return self.head(self.norm(self.blocks(x)))


def texts() -> tuple[Tensor, Tensor, int]:
    """Pages to train on and pages to test on, as numbers of letters; rare letters are one."""
    read = [page.read_text(encoding="utf-8") for page in PAGES]
    known = {letter: i for i, letter in enumerate(sorted({c for page in read for c in page if c.isascii()}))}
    parts = ("".join(read[i] for i in range(len(read)) if (i % 10 == 9) is test) for test in (False, True))
    train, test = (torch.tensor([known.get(c, len(known)) for c in part]) for part in parts)
    return train, test, len(known) + 1


def counted(train: Tensor, test: Tensor, letters: int) -> tuple[float, float]:
    """Bits a character by the counts of letters, and of pairs of them, each one seen once more than it was."""
    single = torch.bincount(train, minlength=letters) + 1.0
    pairs = torch.bincount(train[:-1] * letters + train[1:], minlength=letters**2).reshape(letters, letters) + 1.0
    alone = -(single / single.sum()).log2()[test[1:]].mean()
    paired = -(pairs / pairs.sum(1, keepdim=True)).log2()[test[:-1], test[1:]].mean()
    return float(alone), float(paired)


def trained(scheme: str, steps: int, train: Tensor, letters: int) -> nn.Module:
    """The model after ``steps`` steps of AdamW at a rate that falls along a cosine."""
    torch.manual_seed(0)
    model = Characters(letters)
    technique = attach(model, scheme, None, steps=steps)
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        begins = torch.randint(len(train) - LENGTH - 1, (BATCH, 1))
        text = train[begins + torch.arange(LENGTH + 1)]
        technique.before_step(step)
        loss = functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        technique.adjust_gradients(step)
        optimizer.step()
        technique.after_step(step, optimizer)
    return model


@torch.no_grad()
def bits(model: nn.Module, test: Tensor) -> float:
    """Bits a character on the pages to test on, piece by piece."""
    pieces = test[: (len(test) - 1) // LENGTH * LENGTH + 1]
    given, wanted = pieces[:-1].reshape(-1, LENGTH), pieces[1:].reshape(-1, LENGTH)
    return float(functional.cross_entropy(model.eval()(given).flatten(0, 1), wanted.flatten())) / math.log(2)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--schemes", default="dense,tbt-binary")
    parser.add_argument("--steps", type=int, default=300)
    asked = parser.parse_args()
    # Threads cost a model of this size more than they bring.
    torch.set_num_threads(1)
    train, test, letters = texts()
    print(f"{len(train):,} characters to train on, {len(test):,} to test on, {letters} letters")
    alone, paired = counted(train, test, letters)
    print(f"letters alone {alone:.3f} bits, pairs {paired:.3f} bits")
    step = weft.trace(Characters(letters), torch.zeros(BATCH, LENGTH, dtype=torch.long), optimizer="adamw")
    for scheme in asked.schemes.split(","):
        found = bits(trained(scheme, asked.steps, train, letters), test)
        marked = step if scheme == "dense" else weft.sparsify(step, scheme)
        cycles = weft.simulate(weft.schedule(marked, "bnn-vu9p")).cycles.total
        print(f"{scheme:12} {found:.3f} bits, {cycles:>9,} cycles a step on bnn-vu9p", flush=True)


if __name__ == "__main__":
    main()
