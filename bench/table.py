#!/usr/bin/env python
"""The README's table from a record of bench/run.py: `python bench/table.py bench/results/RUN.jsonl`.

Each cell is our time, and in brackets how often it goes into that of tuned NumPy, of torch (the faster of eager and
torch.compile), and of the best peer, which is named. Times are minima of interleaved rounds.
"""

import argparse
from pathlib import Path

from gencore._bench.report import Record, duration, read

ROWS = {
    "gibbs": "Gibbs v-h-v step, 784x500, 1,000 chains",
    "cd1": "CD-1 training step, batch 128",
    "cd10": "CD-10 training step, batch 128",
    "ais": "AIS, 100 runs x 14,500 temperatures",
    "log_z": "exact log Z, 784x20",
    "free_energy": "log-likelihood of 10,000 rows",
    "pseudo": "pseudo-likelihood",
    "gemm_1024x1024x1024": "matrix product, 1024^3",
    "gemm_128x500x784": "matrix product, 128x500x784",
    "gemm_64x256x256": "matrix product, 64x256x256",
    "gemm_32x64x64": "matrix product, 32x64x64",
    "gemm_1x512x512": "matrix product, 1x512x512",
    "reparam_10000x100": "Gaussian draw + KL and gradients, 10,000x100",
    "reparam_50000x20": "Gaussian draw + KL and gradients, 50,000x20",
    "gumbel": "Gumbel-softmax and gradient, 104,857x10",
    "adam": "Adam step, 1.3 M parameters",
    "vae_step": "VAE training step 784-500-500-20, batch 128",
    "iwae": "IWAE bound of an image, 5,000 draws",
    "nade": "NADE log-likelihood and gradients, 100 x 784x500",
    "nade_sample": "NADE, 100 samples",
    "lstm": "LSTM, 28 steps, 64 x 64-256, and gradients",
    "bilstm": "Diagonal BiLSTM 64-32 and gradients, 16 x 28x28",
    "made": "MADE log-likelihood and gradients, 100 x 784-500-784",
    "made_sample": "MADE, 100 samples",
    "conv128_forward": "masked conv 3x3 B 128-128, 16 x 32x32",
    "conv128_both": "masked conv 3x3 B 128-128 and gradients",
    "conv7x7_both": "masked conv 7x7 A 1-32 and gradients, 16 x 28x28",
    "pixelcnn_step": "PixelCNN loss and gradients, batch 100",
    "pixelcnn_sample": "PixelCNN, 16 samples 28x28",
}
PEERS = {"NumPy": ("numpy",), "torch": ("torch", "compile")}


def times(records: list[Record]) -> dict[tuple[str, int], dict[str, float]]:
    """Minimum in seconds by work, threads and peer."""
    table: dict[tuple[str, int], dict[str, float]] = {}
    for r in records:
        if r["record"] == "result":
            table.setdefault((r["work"], r["threads"]), {})[r["peer"]] = r["seconds"]["min"]
    return table


def cells(of_peers: dict[str, float]) -> list[str]:
    """Our time, the ratios to NumPy and torch, and the ratio to the best peer with its name."""
    ours = of_peers["gencore"]
    others = {peer: t for peer, t in of_peers.items() if peer != "gencore"}
    best = min(others, key=lambda peer: others[peer])
    ratios = []
    for names in PEERS.values():
        present = [others[name] for name in names if name in others]
        ratios.append(f"{min(present) / ours:.1f}x" if present else "-")
    return [duration(ours).strip(), *ratios, f"{others[best] / ours:.1f}x ({best})"]


def table(records: list[Record]) -> str:
    """The whole table in Markdown."""
    by_work = times(records)
    threads = sorted({t for _, t in by_work})
    head = [f"{n} thread{'s' if n > 1 else ''}" for n in threads]
    lines = ["| work | " + " | ".join(f"{h} | NumPy | torch | best peer" for h in head) + " |"]
    lines.append("|---|" + "--:|--:|--:|--:|" * len(threads))
    for work, title in ROWS.items():
        row = [cell for n in threads if (work, n) in by_work for cell in cells(by_work[work, n])]
        if row:
            lines.append(f"| {title} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("record", type=Path, metavar="RUN.jsonl")
    print(table(read(parser.parse_args().record)), end="")
