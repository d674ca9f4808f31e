"""Channels of a binary network in the order of a spanning tree, before and after a training that pulls them together.

python examples/spanning_tree.py [EPOCHS]
"""

import sys

import weft
from weft.analysis.trees import tree_account
from weft.dataflow.spanning_tree import TreeEngine


def table(epochs: int | None = None) -> str:
    """Of the mlp on the digits: accuracy, and shares of the bits compared, of the weights stored, and of the cycles."""
    engine = TreeEngine(lanes=16, word_bits=32, positions=16)
    lines = ["scheme  accuracy  compared  stored  cycles  levels"]
    for scheme in ("bireal", "mst"):
        found = tree_account(weft.train("mlp", scheme=scheme, epochs=epochs), engine)
        whole = found.weights
        lines.append(
            f"{scheme:6}  {found.accuracy:8.1%}  {found.compared / found.compared_plain:8.1%}  "
            f"{whole.stored / whole.stored_plain:6.1%}  {found.cycles / found.cycles_plain:6.1%}  {whole.levels:6}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(int(sys.argv[1]) if len(sys.argv) > 1 else None))
