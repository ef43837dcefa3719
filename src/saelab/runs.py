"""What a run is: where activations come from, which SAE, how it is optimized, and which seed."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Source:
    """Where activations come from: model, text, hook and how they are read."""

    model: str = "pylm"  # the embedded model, a local folder, or a Hugging Face id
    # the embedded text, a txt / jsonl / parquet file, or hf:<dataset>[:<config>]
    corpus: str = "stdlib"
    hook: str = "middle"  # blocks.5.hook_resid_post, layers.5, the module path, or middle
    context: int = 128  # tokens per window, BOS included
    # activations an SAE is trained on, in whole steps; a shorter text repeats
    tokens: int = 1_000_000
    batch: int = 1_024  # activations per step
    buffer: int = 65_536  # activations shuffled together
    lm_batch: int = 32  # windows per forward of the language model
    # drop activations whose norm exceeds this multiple of the median norm
    max_norm: float | None = None
    text_column: str = "text"  # of jsonl, parquet and Hugging Face rows
    eval_windows: int = 256  # held-out windows that evaluation reads
    seed: int = 0  # of the order of the text

    @property
    def where(self) -> str:
        return f"{self.model} with {self.corpus}"

    @property
    def steps(self) -> int:
        return self.tokens // self.batch


@dataclass(frozen=True)
class WorldSource:
    """A synthetic world to train on: its name, the parameters that differ from its own, and how
    much is drawn from it.
    """

    world: str
    settings: Mapping[str, float]
    tokens: int  # activations an SAE is trained on, all of them new
    batch: int  # activations per step
    seed: int = 0  # of the world: its features and everything drawn from it

    @property
    def where(self) -> str:
        return f"world {self.world!r}"

    @property
    def corpus(self) -> str:
        return ""  # a world reads no text

    @property
    def steps(self) -> int:
        return self.tokens // self.batch


@dataclass(frozen=True)
class Spec:
    """Which SAE: a base or a row by name, its size, the sparsity asked for, the numbers that differ
    from its defaults, and the parts that join it, each with numbers of its own.
    """

    variant: str
    n_latents: int = 2_048
    l0: float = 32.0
    settings: Mapping[str, float] = field(default_factory=dict)
    # what tables, contrasts and folders call it; empty: after the variant and its parts
    label: str = ""
    parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.label or "-".join((self.variant, *self.parts))


@dataclass(frozen=True)
class Optim:
    """Adam and its schedule: warm-up, constant, linear decay to 0 over the last share of the
    steps.
    """

    # None: derived from the number of latents and steps (`train.optim.learning_rate`)
    lr: float | None = None
    warmup: int = 50  # steps
    decay: float = 0.3  # last share of the steps
    beta1: float = 0.9
    beta2: float = 0.999
    clip: float = 1.0  # gradient norm per parameter group
    # activations without firing; None: 10 million, or a tenth of a shorter run
    dead_after: int | None = None
    amp: Literal["none", "bf16"] = "none"  # autocast of the matrix products; weights stay fp32


@dataclass(frozen=True)
class Run:
    """One SAE to train. Its identity is its content: equal fields, equal id, the same folder."""

    spec: Spec
    source: Source | WorldSource
    optim: Optim = field(default_factory=Optim)
    seed: int = 0  # of the SAE's initial weights and its own randomness
    # identity of the script that builds the SAE; empty: the table of variants builds it
    code: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """Nested plain fields, for json. Without parts or code there is no word of them, so that
        runs from before there were any keep their identity.
        """
        config = asdict(self)
        if not self.code:
            del config["code"]
        if not self.spec.parts:
            del config["spec"]["parts"]
        return config
