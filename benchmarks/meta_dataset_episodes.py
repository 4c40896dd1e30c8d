"""Statistics of Meta-Dataset's episodes: python benchmarks/meta_dataset_episodes.py --specs FOLDER [--out FILE].

FOLDER holds SOURCE_dataset_spec.json of the ten sources, from `meta_dataset/dataset_conversion/dataset_specs` of the repository
google-research/meta-dataset: no picture is read. Each figure stands beside what the specification of the benchmark gives.
"""

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np

from lethax.data.buckets import QUERY, SUPPORT, bucket
from lethax.data.known import METADATASET
from lethax.data.metadataset.facts import published
from lethax.data.metadataset.spec import read_spec
from lethax.data.store import SPLITS
from lethax.data.variable_episodes import BENCHMARK, Pool, VariableEpisodes
from lethax.files import to_json

RULES = BENCHMARK
GRAPH = "ilsvrc_2012"
# Of each split of ILSVRC: inner nodes, those that may be drawn, those of them with over 50 leaves, and the mean number of classes.
FIGURES = ("inner_nodes", "eligible", "over_50_leaves", "mean_way")
NODES = {"train": (299, 113, 16, 18.96), "val": (42, 18, 4, 20.39), "test": (50, 15, 1, 14.80)}


def pools(specs: Path, split: str) -> dict[str, Pool]:
    """The pools of all sources that have classes in a split."""
    found = {}
    for source in METADATASET:
        known = published(source)
        images = {name: one.images for name, one in read_spec(specs / f"{source}_dataset_spec.json").items()}
        classes = known.named(images, source).get(split, [])
        groups = list(known.groups(split, classes).values())
        if known.alphabets:
            above = np.array([known.alphabets[name] for name in classes])
            groups = [np.flatnonzero(above == one) for one in dict.fromkeys(above.tolist())]
        counts = np.array([images[name] for name in classes])
        if classes:
            starts = np.concatenate([[0], np.cumsum(counts)])
            found[source] = Pool(source, starts, counts, tuple(map(np.array, groups)), source == GRAPH)
    return found


def expected_way(pool: Pool) -> float:
    """The mean number of classes by the rules."""
    groups = [len(group) for group in pool.groups] or [len(pool.counts)]
    if pool.whole:
        return float(np.mean([min(n, RULES.most_way) for n in groups if RULES.least_way <= n <= RULES.largest_node]))
    return float(np.mean([(RULES.least_way + min(n, RULES.most_way)) / 2 for n in groups]))


def statistics(drawn: VariableEpisodes, episodes: int) -> tuple[dict[str, float], np.ndarray]:
    """Means over episodes, and [episodes, 2] the sizes of support and query sets."""
    sizes = [drawn.sizes(number) for number in range(episodes)]
    ways = np.array([len(one.classes) for one in sizes])
    shots = np.concatenate([one.shots for one in sizes])
    both = np.array([[one.shots.sum(), len(one.classes) * one.query] for one in sizes])
    found = {
        "way": ways.mean(), "way_deviation": ways.std(), "shots": shots.mean(), "shots_median": np.median(shots),
        "one_shot": (shots == 1).mean(), "support": both[:, 0].mean(), "query": both[:, 1].mean(),
        "query_per_class": np.mean([one.query for one in sizes]),
    }  # fmt: skip
    return {key: round(float(value), 4) for key, value in found.items()}, both


def padding(both: np.ndarray) -> dict[str, object]:
    """How much larger the arrays are than what is in them, and how many shapes there are."""
    held = np.array([[bucket(support, SUPPORT), bucket(query, QUERY)] for support, query in both.tolist()])
    larger = held.mean(0) / both.mean(0)
    steps = (5 * held[:, 0] + held[:, 1]).mean() / (5 * both[:, 0] + both[:, 1]).mean()
    return {
        "support_sizes": SUPPORT, "query_sizes": QUERY, "shapes": len(np.unique(held, axis=0)),
        "support": round(float(larger[0]), 4),
        "query": round(float(larger[1]), 4), "five_inner_steps": round(float(steps), 4),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", type=Path, required=True)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    by_split = {split: pools(args.specs, split) for split in SPLITS}
    result: dict[str, object] = {"command": shlex.join(["python", *sys.argv]), "episodes": args.episodes, "seed": 0}
    nodes, sources = {}, {}
    for split, found in by_split.items():
        groups = [len(group) for group in found[GRAPH].groups]
        eligible = [n for n in groups if RULES.least_way <= n <= RULES.largest_node]
        mine, _ = statistics(VariableEpisodes([found[GRAPH]]), args.episodes)
        counted = (len(groups), len(eligible), sum(n > RULES.most_way for n in eligible), round(mine["way"], 2))
        nodes[split] = {
            name: {"found": one, "specification": other}
            for name, one, other in zip(FIGURES, counted, NODES[split], strict=True)
        }
        print(f"{GRAPH} {split}: {nodes[split]}")
    for source, pool in by_split["test"].items():
        one, _ = statistics(VariableEpisodes([pool]), args.episodes // 5)
        sources[source] = {**one, "way_by_the_rules": round(expected_way(pool), 4)}
        print(f"{source} test: {sources[source]}")
    training = VariableEpisodes([pool for source, pool in by_split["train"].items()])
    mixed, both = statistics(training, args.episodes)
    result |= {"nodes": nodes, "test_sources": sources, "training": mixed, "padding": padding(both)}
    print(f"training sources mixed: {mixed}\npadding: {result['padding']}")
    if args.out:
        args.out.write_text(to_json(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
