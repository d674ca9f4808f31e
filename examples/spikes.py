"""What few spikes buy: a spiking network trained with a price on its spikes, its layers stepped on real images.

python examples/spikes.py [EPOCHS [PRICE ...]]
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import torch

import weft
from weft.analysis.energy import energy
from weft.analysis.energy_table import load_table
from weft.dataflow.stce.mapping import Dataflow
from weft.dataflow.xnor.mapping import XnorMapping
from weft.dataflow.xnor.skipped import executed
from weft.dataflow.xnor.time import xnor_cycles
from weft.dataflow.xnor.words import beats_of
from weft.simulator.xnor import occupied_words, pack
from weft.simulator.xnor_neuron import neurons_of, run_spiking
from weft.workloads.data import normalised, open_data
from weft.workloads.gemm import Gemm, Pass
from weft.workloads.im2col import Window, unfold
from weft.workloads.levels import Levels
from weft.workloads.schemes import attach
from weft.workloads.training import new_model, plan, step_workload

IMAGES, BATCH = 64, 64
LEVELS = (Levels.SPIKE, Levels.TERNARY)
machine = weft.machine("bnn-ecp5")
chip = load_table("asic-16nm")  # joules of an FPGA follow the time
torch.set_num_threads(1)  # layers this small
data = open_data("digits", None)
spec = plan("snn", scheme="spiking")


def charged(spikes, price):
    """Adds the gradient of ``price()`` times the mean rate."""
    if spikes.requires_grad:
        spikes.register_hook(lambda gradient: gradient + price() / spikes.numel())


def trained(epochs, price):
    """The network, its technique, its share of right test images; ``price`` of the mean rate of a layer in the loss."""
    torch.manual_seed(0)
    model = new_model(spec, data)
    steps = epochs * (len(data.train.labels) // BATCH)
    technique = attach(model, "spiking", None, steps=steps)
    for neurons in model.neurons:  # a price from the first step on leaves no neuron that fires
        neurons.register_forward_hook(lambda _, __, out: charged(out, lambda: price * technique.step / steps))
    optimizer = torch.optim.AdamW(model.parameters(), spec.learning_rate, weight_decay=spec.weight_decay)
    rates = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        index = torch.randint(len(data.train.labels), (BATCH,))
        technique.before_step(step)
        optimizer.zero_grad()
        scores = model(normalised(data, data.train.fetch(index)))
        torch.nn.functional.cross_entropy(scores, data.train.labels[index]).backward()
        optimizer.step()
        technique.after_step(step, optimizer)
        rates.step()
    technique.before_step(steps - 1)
    with torch.no_grad():
        scores = model(normalised(data, data.test.fetch(torch.arange(len(data.test.labels)))))
    return model, technique, (scores.argmax(1) == data.test.labels).float().mean().item()


def best_mapping(gemm):
    """Output-stationary, as only there a few rows share a tile; the interleave of the fewest cycles."""
    made = (XnorMapping(dataflow=Dataflow.OS, interleave=i) for i in range(1, machine.xnor.accumulators + 1))
    return min(made, key=lambda mapping: xnor_cycles(machine, gemm, mapping, LEVELS).total)


def microjoules(placed, run, counts):
    """Of a product that took so many cycles and counts, DRAM apart."""
    op = replace(placed.ops[0], cycles=run.cycles, counts=replace(placed.ops[0].counts, **counts._asdict()))
    found = energy(replace(placed, ops=(op,)), chip).by_component
    return 1e6 * (sum(found.values()) - found["DRAM"]), 1e6 * found["DRAM"]


def stepped(layer, neurons, spikes):
    """A convolution and the neurons behind it on the machine; ``spikes`` bool [images, channels, height, width].

    Rows of the product are either the positions of one image after the other, or position after position of all images.
    """
    images, channels, *side = spikes.shape
    window = Window(image=tuple(side), kernel=(3, 3), stride=(2, 2), padding=(1, 1), dilation=(1, 1))
    rows = unfold(spikes, window).reshape(images, -1, 9 * channels)
    weights = layer.operand(Pass.FF).permute(2, 3, 1, 0).flatten(0, 2).numpy().astype(np.int8)
    integers = neurons_of(neurons.threshold.detach().numpy(), float(layer.scale.flatten()[0]), neurons.leak)
    found = {}
    for order, events in (("by image", rows), ("by position", rows.transpose(1, 0, 2))):
        events = events.reshape(1, -1, 9 * channels)
        gemm = Gemm(m=events.shape[1], k=9 * channels, n=weights.shape[1], run=channels)
        mapping = best_mapping(gemm)
        for skip in (False, True):
            found[order, skip] = run_spiking(
                machine, mapping, events, weights, LEVELS[1], integers, run=channels, skip=skip
            )
        found[order] = gemm, mapping, occupied(events[0], weights, gemm, mapping)
    out = found["by image", True].spikes[0].reshape(images, *window.positions, -1).transpose(0, 3, 1, 2)
    return found, out


def occupied(events, weights, gemm, mapping):
    """Words of every tile that are not left out."""
    own = machine.xnor
    west, north = (
        pack(x, levels, own.word_bits, gemm.run) for x, levels in zip((events, weights.T), LEVELS, strict=True)
    )
    return occupied_words(own, mapping, west, north)


def report(price, epochs):
    model, technique, accuracy = trained(epochs, price)
    fired = []
    for neurons in model.neurons:
        neurons.register_forward_hook(lambda _, __, out: fired.append(out[0].bool().numpy()))
    with torch.no_grad():
        classes = model(normalised(data, data.test.fetch(torch.arange(IMAGES)))).argmax(1)
    step = weft.sparsify(step_workload(spec), "spiking")
    spikes, beats = fired[0], len(beats_of(*LEVELS))
    print(f"price {price:g}: {100 * accuracy:.1f} % right")
    for i, name in ((1, "convs.1"), (2, "convs.2")):
        op = next(op for op in step.matrix_ops if op.name == name and op.pass_ is Pass.FF)
        op = replace(op, c=replace(op.c, levels=Levels.SPIKE))
        placed = weft.simulate(weft.schedule(replace(step, ops=(op,), after=()), machine))
        density = spikes.mean()
        found, out = stepped(technique.layers[name], model.neurons[i], spikes)
        if not (out == fired[i]).all():
            print(f"  {name}: {(out != fired[i]).sum()} spikes differ from PyTorch's")
        for order in ("by image", "by position"):
            gemm, mapping, words = found[order]
            whole = np.full_like(words, gemm.k // gemm.run * -(-gemm.run // machine.xnor.word_bits))
            line = [f"  {name}, {density:.3f} spikes, rows {order}: {words.sum() / whole.sum():.2f} of the words"]
            for skip, kept in ((False, whole), (True, words)):
                run = found[order, skip].steps[0]
                near, far = microjoules(placed, run, executed(machine, mapping, gemm.m, gemm.n, beats, kept))
                line.append(f"{run.length:,} cycles, {near:.2f} uJ and DRAM {far:.2f} uJ")
            print(f"{line[0]}; all {line[1]}; skipped {line[2]}")
        spikes = out
    with torch.no_grad():
        same = (model.head(torch.from_numpy(spikes).float().flatten(1)).argmax(1) == classes).all()
    print(f"  classes of {IMAGES} images {'equal' if same else 'differ from'} PyTorch's")


if __name__ == "__main__":
    for amount in sys.argv[2:] or ("0", "0.1", "0.3", "1"):
        report(float(amount), int(sys.argv[1]) if len(sys.argv) > 1 else 20)
