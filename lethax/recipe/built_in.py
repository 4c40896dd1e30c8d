"""The sections of a recipe: one frozen dataclass each, whose fields are the options with their ranges and their help.

A default here is what holds where neither the domain nor the method has a published value of its own.
"""

from dataclasses import dataclass
from typing import Literal

from lethax.recipe.options import MANY, option


@dataclass(frozen=True)
class EpisodeSection:
    """The classes and the examples of an episode."""

    way: int = option(5, "An episode has this many classes.", "way", low=1)
    shot: int = option(
        5,
        "Each class, or a task without classes, has this many support examples; in control, an update has this many rollouts.",
        "shot",
        low=1,
    )
    query: int = option(15, "Each class, or a task without classes, has this many query examples.", "query", low=1)
    eval_query: int = option(
        15, "In validation and test, each class has this many query examples.", "eval-query", low=1
    )
    rotate: bool = option(False, "Training episodes turn whole classes by multiples of 90 degrees.", "rotate")


@dataclass(frozen=True)
class NetSection:
    """The network that the method trains."""

    kind: Literal["conv4", "resnet12", "mlp"] = option("conv4", "The kind of network.", "net")
    filters: int = option(
        48,
        "Each layer of conv4 has this many channels, or each hidden layer of mlp this many units.",
        "filters",
        low=1,
        high=MANY,
    )
    depth: int = option(2, "The network mlp has this many hidden layers.", "depth", low=1, high=100)
    deviation: float = option(
        0.0,
        "The first weights of mlp are drawn from a normal distribution of this deviation; 0 takes PyTorch's uniform weights.",
        "deviation",
        low=0,
    )
    norm: Literal["batch", "support", "support+1"] = option(
        "batch", "Batch norm takes the moments of queries from the whole query batch, from the support set, or from the support "
        "set and one query.", "norm",
    )  # fmt: skip
    per_step_norm: bool = option(
        False, "Each norm has a scale and a shift for every inner step (MAML++).", "per-step-norm"
    )
    precision: Literal["float32", "tf32", "bfloat16"] = option(
        "float32",
        "The network computes in float32, in float32 with products of TF32 on GPUs that have it, or in bfloat16. All around it is "
        "float32 in any case.",
        "precision",
    )


@dataclass(frozen=True)
class InnerSection:
    """The inner loop: fast adaptation to one task."""

    steps: int = option(
        5, "Adaptation takes this many inner steps, in training and in evaluation.", "inner-steps", low=0, high=1000
    )
    rate: float = option(
        0.01,
        "The inner rate α, which is the size of an inner step; where it is learned, its first value.",
        "inner-rate",
        low=0,
    )
    head: Literal["trained", "zero", "vector", "prototypes"] = option(
        "trained",
        "In each task the last layer starts from its trained weights, from zero, from the mean of its trained columns, or from "
        "the mean features of each class (Proto-MAML).",
        "head",
    )
    clamp: float = option(
        0.0, "Each entry of an inner gradient is cut to ± this bound; 0 is off.", "inner-clamp", low=0
    )
    rule: Literal["sgd", "sign", "metasgd", "lslr", "alfa"] = option(
        "sgd",
        "How an inner gradient becomes a step: by a fixed rate (sgd), its sign, or rates that are learned.",
        "rule",
    )
    order: Literal[1, 2] = option(
        2,
        "2 differentiates through the inner steps; 1 is first order, which leaves the second derivatives out.",
        "order",
    )
    first_order_steps: int = option(
        0, "This many outer steps at the start of training are of first order.", "first-order-steps", low=0
    )
    multi_step_steps: int = option(
        0,
        "This many outer steps at the start of training have the multi-step loss of MAML++; 0 is off.",
        "multi-step-steps",
        low=0,
    )
    multi_step_epochs: int = option(
        10,
        "In this many epochs, the weights of the multi-step loss move to the last inner step.",
        "multi-step-epochs",
        low=1,
    )


@dataclass(frozen=True)
class OuterSection:
    """Meta-training: the outer loop and its optimiser."""

    steps: int = option(50_000, "Training takes this many outer steps.", "steps", low=1)
    full_steps: int = option(
        50_000,
        "A full run has this many outer steps; phases that are not given shrink in the proportion of steps to the published ones.",
        "full-steps",
        low=1,
    )
    batch: int = option(4, "An outer step has this many episodes, or control tasks.", "batch", low=1, high=MANY)
    task_chunk: int = option(
        0,
        "Each device goes through its episodes in chunks of so many, whose meta-gradients are added: less memory, more time; 0 "
        "takes all at once.",
        "task-chunk",
        low=0,
    )
    rate: float = option(1e-3, "Adam's learning rate.", "outer-rate", above=0)
    min_rate: float = option(
        1e-3,
        "Adam's rate falls to this value along a cosine; if it equals the rate, the rate is constant.",
        "min-outer-rate",
        low=0,
    )
    clamp: float = option(
        0.0, "Each entry of the weights' meta-gradient is cut to ± this bound; 0 is off.", "clamp", low=0
    )
    clip_norm: float = option(
        0.0, "A meta-gradient whose norm is above this bound is scaled down to it; 0 is off.", "clip-norm", low=0
    )
    clip_tensor_norm: float = option(
        0.0,
        "The meta-gradient of a tensor whose norm is above this bound is scaled down to it; 0 is off.",
        "clip-tensor-norm",
        low=0,
    )
    non_finite: Literal["stop", "skip"] = option(
        "stop",
        "What happens at a meta-gradient with a NaN or an Inf, or with an infinite square: the run stops, or skips the step.",
        "non-finite",
    )
    weight_decay: float = option(
        0.0,
        "λ of a penalty λ/2 Σ w² of the initial weights, but not of biases and norms; 0 is off.",
        "weight-decay",
        low=0,
    )
    reduction: Literal["sum", "mean"] = option(
        "sum", "The loss of a meta-batch is the sum or the mean over its episodes.", "reduction"
    )
    epoch: int = option(500, "A validation follows after every epoch of this many outer steps.", "epoch", low=1)
    val_episodes: int = option(
        600, "A validation has this many fixed episodes, or control tasks.", "val-episodes", low=1
    )
    keep: int = option(
        3, "The run keeps this many checkpoints, those with the best validation scores.", "keep", low=1, high=1000
    )


@dataclass(frozen=True)
class GateSection:
    """L2F's gates of the initial weights (Baik et al. 2020)."""

    scope: Literal["network", "layer", "tensor", "filter", "parameter"] = option(
        "tensor", "The weights of a network, layer, tensor or filter share a gate, or each parameter has its own."
    )
    activation: Literal["sigmoid", "identity", "twice_sigmoid"] = option(
        "sigmoid", "This function turns an output of the attenuator into a gate."
    )
    fixed: tuple[float, ...] = option((), "These gates are used for all tasks, and none are computed.")
    task_dependent: bool = option(
        True, "Gates are computed for each task; without this, one learned vector of gates serves all tasks."
    )
    embedding: Literal["mean", "mean_abs", "norm"] = option(
        "mean", "The attenuator reads the mean, the mean absolute value, or the L2 norm of each gradient."
    )
    embedding_scale: float = option(1.0, "What the attenuator reads is multiplied by this factor.")
    detached: bool = option(
        True, "The gradient that the attenuator reads counts as a constant: no derivative passes through it."
    )
    layers: Literal[2, 3] = option(2, "The attenuator has this many linear layers; the released code has 2.")
    exclude_head: bool = option(False, "The last layer is not attenuated: its gates are 1.")
    every_step: bool = option(False, "The weights are attenuated again before every inner step.")
    bias_init: float = option(
        0.0, "This number is added to the attenuator's last bias. With 4 the gates begin near 0.98, with 0 near a half."
    )
    acts: Literal["weights", "rate", "size"] = option(
        "weights",
        "In layers before a batch norm a gate γ scales the weights, only the inner rate (by 1/γ², which comes to the same), or the "
        "weights and the rate (by γ², so that only the size of the weights changes).",
    )


@dataclass(frozen=True)
class LeoSection:
    """LEO's dropout, penalties and deviations (Rusu et al. 2019)."""

    dropout: float = option(
        0.0, "In training, this share of the entries of a feature vector is set to 0.", low=0, below=1
    )
    kl: float = option(0.0, "The weight, in the loss, of the KL divergence of the latent codes from N(0, 1).", low=0)
    penalty: float = option(
        0.0, "The weight, in the loss, of the distance between the adapted and the encoded latent codes.", low=0
    )
    l2: float = option(0.0, "The weight decay of the encoder, the relation net and the decoder.", low=0)
    orthogonality: float = option(
        0.0, "The weight, in the loss, of the correlation between the rows of the decoder.", low=0
    )
    gates: Literal["task", "class"] = option(
        "task",
        "The classes of a task share the gates of a code and of a classifier (task), or each class has gates of its own, which are "
        "read from its gradients alone (class).",
    )
    sigma: Literal["code", "softplus"] = option(
        "code", "Deviations are computed as in the released code, or by softplus, which has a gradient everywhere."
    )


@dataclass(frozen=True)
class MumomamlSection:
    """MuMoMAML's modulation (Vuorio et al. 2019)."""

    modulation: Literal["film", "sigmoid", "softmax"] = option(
        "film",
        "How the task encoder changes a layer: film scales and shifts it, sigmoid and softmax scale it.",
        "modulation",
    )
    order: Literal["sorted", "drawn"] = option(
        "sorted",
        "The task encoder of curves reads the support points sorted by their first coordinate, or as they were drawn.",
    )


@dataclass(frozen=True)
class ImamlSection:
    """iMAML's proximal inner problem (Rajeswaran et al. 2019)."""

    proximity: float = option(
        2.0, "λ, the weight, in the inner loss, of the squared distance from the initial weights.", "proximity", above=0
    )


@dataclass(frozen=True)
class MetadatasetSection:
    """Meta-Dataset (Triantafillou et al. 2020)."""

    train: str = option(
        "all",
        "The sources of training episodes, with commas between them, as in omniglot,aircraft; all: every prepared one that has "
        "training classes.",
    )
