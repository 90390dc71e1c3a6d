"""Train the models of docs/model_card.md and run the protocol behind its numbers.

python scripts/make_models.py --data DIR [--runs runs/models] [STAGE ...]

DIR is a COCO folder with folds. Without a STAGE all are run, in the order of `--list`. A stage that is complete is left
as it is, one that was stopped goes on; logs are kept beside the runs. `scripts/make_results.py` makes the tables.
"""

import argparse
import pathlib
import subprocess
import sys
import zlib

SCRIPTS = pathlib.Path(__file__).resolve().parent
CONFIGS = SCRIPTS.parent / "configs"
FOLD_LENGTH = ("--config.training.steps=1600", "--config.training.checkpoint_every=800")
FOLDS = (1, 2, 3, 4, 5)
CONTROLS = (1, 3)
"""Folds that the control with matching switched off is trained on as well."""
ABLATIONS = {
    "recipe": [],
    "recipe-again-seed-1": ["--config.seed=1"],
    "no-percentiles": ["--config.data.transform.intensity=none"],
    "no-reference-scale": [
        "--config.data.transform.scale=shortest_side",
        "--config.data.transform.shortest_side=320",
        "--config.data.transform.longest_side=512",
        "--config.data.train_canvases=((320,512),(512,320),(320,320))",
    ],
    "no-scale-jitter": ["--config.data.transform.scale_jitter=1.0"],
    "no-turns-or-flips": ["--config.data.transform.rot90=False", "--config.data.transform.flip=0.0"],
    "no-intensity-jitter": [
        f"--config.data.transform.{name}"
        for name in ("gamma=1.0", "contrast=0.0", "brightness=0.0", "colour=0.0", "noise=0.0")
    ],
    "no-inversion-or-grey": ["--config.data.transform.invert=0.0", "--config.data.transform.grey=0.0"],
    "no-mosaics": ["--config.data.mosaic=0.0"],
    "no-contrast": ["--config.data.contrast=False"],
    "no-pretraining": ["--config.init_from="],
}
"""What is taken out of the recipe; a short training each, on one fold."""
ABLATION_FOLD, ABLATION_STEPS = 1, 300

MANY = ("--images-per-category", "80", "--two-category-images", "300")
ALL_KINDS = ("--random-categories", "100", "--images-per-category", "16", "--two-category-images", "700")
GPU_LENGTH = "--config.training.steps=1224"
"""Of the second stage on a GPU."""
GPU_CONTROL = [
    f"--config.{change}"
    for change in (
        "data.mosaic=0.5",
        "optimizer.learning_rate=2e-3",
        "optimizer.reference_batch_size=16",
        "training.batch_size=16",
    )
]
"""What cells_gpu.py changes in the training, for the control."""

Arguments = list[str]


def main() -> None:
    """Run the stages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=pathlib.Path, metavar="DIR")
    parser.add_argument("--runs", type=pathlib.Path, default=pathlib.Path("runs/models"), metavar="DIR")
    parser.add_argument("--list", action="store_true", help="list the stages")
    parser.add_argument("stages", nargs="*", metavar="STAGE")
    options = parser.parse_args()
    stages = all_stages(options.data or pathlib.Path("DIR"), options.runs)
    if options.list:
        print("\n".join(stages))
        return
    unknown = [name for name in options.stages if name not in stages]
    if unknown or options.data is None:
        parser.error(f"unknown stage {unknown[0]}; --list lists them" if unknown else "give --data DIR")
    for name in options.stages or stages:
        print(f"== {name}", flush=True)
        for command in stages[name]:
            _run(options.runs / "stages" / f"{name}-{zlib.crc32(repr(command).encode()):08x}", command)


def all_stages(data: pathlib.Path, runs: pathlib.Path) -> dict[str, list[Arguments]]:
    """{stage: its commands}; a command is a script and its arguments."""
    drawn = f"--config.data.root={runs / 'drawn'}"
    real = f"--config.data.root={data}"
    start, blind_start = runs / "pretraining", runs / "pretraining-no-matching"
    stages = {
        "drawn": [_draw(runs / "drawn", *MANY)],
        "pretraining": [_train("cells_pretraining", start, drawn)],
        "cells-small": [_train("cells_small", runs / "cells-small", real, f"--config.init_from={start}")],
        "pretraining-no-matching": [_train("cells_no_matching", blind_start, drawn)],
    }
    for fold in FOLDS:
        which = [real, f"--config.data.fold={fold}"]
        folder = runs / f"fold-{fold}"
        stages[f"fold-{fold}"] = [_train("cells_small", folder, *which, f"--config.init_from={start}", *FOLD_LENGTH)]
        stages[f"test-fold-{fold}"] = [
            _evaluate(folder, *which, "split=unseen", "shots=1,3,5", "repeats=5"),
            _evaluate(folder, *which, "split=unseen", "shots=1,3,5", "repeats=5", "references=target"),
            _evaluate(folder, *which, "split=unseen", "shots=5", "repeats=5", "references=wrong"),
            _evaluate(folder, *which, "split=seen", "shots=5", "repeats=5"),
            _evaluate(folder, *which, "split=all", "shots=5", "repeats=3", "mosaics=22"),
        ]
    for fold in CONTROLS:
        which = [real, f"--config.data.fold={fold}"]
        folder = runs / f"fold-{fold}-no-matching"
        stages[folder.name] = [_train("cells_no_matching", folder, *which, f"--config.init_from={blind_start}")]
        stages[f"test-{folder.name}"] = [
            _evaluate(folder, *which, "split=unseen", "shots=5", "repeats=5"),
            _evaluate(folder, *which, "split=seen", "shots=5", "repeats=5"),
            _evaluate(folder, *which, "split=unseen", "shots=5", "repeats=5", "references=wrong"),
            _evaluate(folder, *which, "split=all", "shots=5", "repeats=3", "mosaics=22"),
        ]
    stages["test-otsu"] = [_evaluate(runs / "otsu", real, "--config.data.fold=0", "split=all", "otsu=True")]
    stages["test-cells-small"] = [
        _evaluate(runs / "cells-small", real, "--config.data.fold=0", "split=all", "shots=1,5", "repeats=5")
    ]
    for name, changes in ABLATIONS.items():
        folder = runs / f"ablation-{name}"
        which = [real, f"--config.data.fold={ABLATION_FOLD}"]
        short = f"--config.training.steps={ABLATION_STEPS}"
        stages[folder.name] = [
            _train("cells_small", folder, *which, f"--config.init_from={start}", short, *changes),
            _evaluate(folder, *which, "split=unseen", "shots=5", "repeats=1"),
            _evaluate(folder, *which, "split=seen", "shots=5", "repeats=1"),
        ]
    return stages | _gpu_stages(real, runs)


def _gpu_stages(real: str, runs: pathlib.Path) -> dict[str, list[Arguments]]:
    """`cells-small-gpu` and the networks of its protocol: minutes on a GPU, hours without one."""
    drawn = [f"--config.data.root={runs / 'gpu-drawn'}", "--config.data.validation_fraction=0.02"]
    start, blind_start = (runs / f"gpu-pretraining{suffix}" for suffix in ("", "-no-matching"))
    short = "--config.training.steps=1200"
    stages = {
        "gpu-drawn": [_draw(runs / "gpu-drawn", *ALL_KINDS)],
        "gpu-pretraining": [_train("cells_gpu", start, *drawn)],
        "gpu-pretraining-no-matching": [_train("cells_no_matching", blind_start, *drawn, short, *GPU_CONTROL)],
    }
    for fold in (0, *FOLDS):
        folder = runs / (f"gpu-fold-{fold}" if fold else "cells-small-gpu")
        which = [real, f"--config.data.fold={fold}"]
        stages[folder.name] = [_train("cells_gpu", folder, *which, f"--config.init_from={start}", GPU_LENGTH)]
        splits = ("unseen", "seen") if fold else ("all",)
        stages[f"test-{folder.name}"] = [
            _evaluate(folder, *which, f"split={split}", "shots=5", "repeats=1") for split in splits
        ]
    for fold in CONTROLS:
        which = [real, f"--config.data.fold={fold}"]
        folder = runs / f"gpu-fold-{fold}-no-matching"
        control = [*which, f"--config.init_from={blind_start}", GPU_LENGTH, *GPU_CONTROL]
        stages[folder.name] = [_train("cells_no_matching", folder, *control)]
        stages[f"test-{folder.name}"] = [_evaluate(folder, *which, "split=unseen", "shots=5", "repeats=1")]
    for name in ("gpu-fold-1", "gpu-fold-1-no-matching"):
        mosaics = _evaluate(
            runs / name, real, "--config.data.fold=1", "split=all", "shots=5", "repeats=2", "mosaics=22"
        )
        stages[f"test-{name}"].append(mosaics)
    return stages


def _draw(output: pathlib.Path, *changes: str) -> Arguments:
    return ["-c", "from fsis_jax.cli import main; main()", "data", "synthetic", "--output", str(output), *changes]


def _train(config: str, workdir: pathlib.Path, *changes: str) -> Arguments:
    return [str(SCRIPTS / "train.py"), "--config", str(CONFIGS / f"{config}.py"), "--workdir", str(workdir), *changes]


def _evaluate(workdir: pathlib.Path, *changes: str) -> Arguments:
    """Changes without dashes are of `config.eval`."""
    full = [change if change.startswith("--") else f"--config.eval.{change}" for change in changes]
    command = [str(SCRIPTS / "evaluate.py"), "--config", str(CONFIGS / "cells_small.py"), "--workdir", str(workdir)]
    return [*command, *full]


def _run(log: pathlib.Path, command: Arguments) -> None:
    done = log.with_suffix(".done")
    if done.exists():
        return
    log.parent.mkdir(parents=True, exist_ok=True)
    print(" ".join(command), flush=True)
    with log.with_suffix(".log").open("a") as output:
        subprocess.run([sys.executable, *command], stdout=output, stderr=subprocess.STDOUT, check=True)
    done.touch()


if __name__ == "__main__":
    main()
