"""Parameter groups, against the rules of other programs and against names read by hand."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

import tests.torchvision_shim  # noqa: F401 (before what imports torchvision)
from groundup.model import ModelConfig, Transformer
from groundup.optim import create, groups
from tests.residual import toy
from tests.residual.zoo import SPECIMENS, Specimen

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries, about their own settings


def own(tied: bool = False, layers: int = 3) -> Transformer:
    return Transformer(ModelConfig(layers=layers, width=16, heads=2, vocab_size=32, tied=tied))


def named(model: nn.Module, found: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Names of the parameters by the name of their group."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {g["name"]: [names[id(p)] for p in g["params"]] for g in found}


# Groups that do not turn.
_KEPT = re.compile(r"(head|no-decay)$")
# What authors call the map to their logits. BERT's and others' of Hugging Face are tied.
_HEADS = re.compile(r"(lm_head|output|classifier|head|head_dist)\.weight")


def head_by_name(specimen: Specimen, model: nn.Module) -> list[str]:
    if specimen.library == "plain torch":  # its sizes do not tell the head
        return []
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    outside = [(n, p) for n, p in model.named_parameters() if id(p) not in embeddings]
    return [name for name, _ in outside if _HEADS.fullmatch(name)]


@pytest.fixture
def process_group(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


# ---------------------------------------------------------------------- what is decayed


@pytest.mark.parametrize("tied", [False, True])
def test_own_model_by_the_rule_of_its_trainer(tied: bool) -> None:
    """Matrices are decayed, all that is a vector or an embedding is not; order of the model."""
    model = own(tied)
    decayed, bare = [], []
    for name, p in model.named_parameters():
        (bare if "norm" in name or "embedding" in name else decayed).append(p)
    first, *between, last = groups(model, 0.3)
    assert len(between) == (0 if tied else 1)
    inside = [g for part in (first, *between) for g in part["params"]]
    assert [id(p) for p in inside] == [id(p) for p in decayed]  # the head comes last
    assert [id(p) for p in last["params"]] == [id(p) for p in bare]
    assert [{k: v for k, v in g.items() if k != "params"} for g in (first, *between, last)] == [
        {"weight_decay": 0.3, "name": "matrices"},
        *[{"weight_decay": 0.3, "name": "head", "rotational": False}] * (not tied),
        {"weight_decay": 0.0, "name": "no-decay", "rotational": False},
    ]


@pytest.mark.parametrize("specimen", SPECIMENS, ids=str)
def test_every_architecture(specimen: Specimen) -> None:
    """Layers by the numbers in the names; weight decay by the rules of Hugging Face and nanoGPT."""
    if specimen.library in ("transformers", "timm"):
        pytest.importorskip(specimen.library)
    model = specimen.build()
    names = {id(p): name for name, p in model.named_parameters()}
    embeddings = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}

    found = groups(model, by_layer=True, branches=specimen.patterns)
    seen = [id(p) for g in found for p in g["params"]]
    assert len(seen) == len(set(seen))
    assert set(seen) == {id(p) for p in model.parameters() if p.requires_grad}
    first = min(
        place
        for place, name in enumerate(names.values())
        if any(name.startswith(f"{stack}.") for stack in specimen.stacks)
    )
    for group in found:
        for p in group["params"]:
            matches = [re.match(rf"{re.escape(s)}\.(\d+)\.", names[id(p)]) for s in specimen.stacks]
            numbers = [int(match[1]) + 1 for match in matches if match]
            assert group["layer"] == (numbers[0] if numbers else None)
            if not numbers:
                before = list(names).index(id(p)) < first
                assert group["name"].startswith("input " if before else "output ")
    assert len({group["name"] for group in found}) == len(found)
    heads = [g for g in found if g["name"] == "output head"]
    assert [names[id(p)] for g in heads for p in g["params"]] == head_by_name(specimen, model)
    assert all(g.get("rotational") is (False if _KEPT.search(g["name"]) else None) for g in found)

    decayed = {id(p) for g in found if g["weight_decay"] for p in g["params"]}
    together = groups(model)
    assert decayed == {id(p) for g in together if g["weight_decay"] for p in g["params"]}
    # nanoGPT: two dimensions or more (biases of experts have them too); embeddings aside.
    wide = {id(p) for p in model.parameters() if p.ndim >= 2 and "bias" not in names[id(p)]}
    exempt = getattr(model, "no_weight_decay", set)()
    wide -= embeddings | {key for key, name in names.items() if name in exempt}
    assert decayed == wide
    if specimen.library == "transformers":
        from transformers import Trainer

        theirs = set(Trainer.get_decay_parameter_names(None, model))  # type: ignore[arg-type]
        ours = {names[key] for key in decayed}
        assert ours <= theirs
        shapes = {name: p.ndim for name, p in model.named_parameters()}
        rest = {name for name in theirs - ours if name in shapes}
        assert all(shapes[n] < 2 or id(model.get_parameter(n)) in embeddings for n in rest)


def test_norms_and_biases_of_any_shape() -> None:
    class RowNorm2d(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3, 4))

    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.Parameter(torch.ones(2, 3, 4))
            self.up_bias = nn.Parameter(torch.ones(2, 4))
            self.debias = nn.Parameter(torch.ones(2, 4))

    class NormalizedLinear(nn.Linear):
        """No norm, for all its name."""

    model = nn.ModuleDict(
        {"a": RowNorm2d(), "b": Experts(), "c": nn.LayerNorm((2, 5)), "d": NormalizedLinear(2, 2)}
    )
    assert named(model, groups(model)) == {
        "matrices": ["b.up", "b.debias", "d.weight"],
        "no-decay": ["a.scale", "b.up_bias", "c.weight", "c.bias", "d.bias"],
    }


def test_names_that_the_user_or_the_model_exempts() -> None:
    class Vision(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pos_embed = nn.Parameter(torch.ones(1, 4, 8))
            self.proj, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

        def no_weight_decay(self) -> set[str]:
            return {"pos_embed", "not_there"}

        def get_classifier(self) -> nn.Module:
            return self.head

    model = nn.Sequential(Vision())
    assert named(model, groups(model)) == {
        "matrices": ["0.proj.weight"],
        "head": ["0.head.weight"],
        "no-decay": ["0.pos_embed", "0.proj.bias", "0.head.bias"],
    }
    found = groups(model, no_decay=["*.head.*"])
    assert [g["name"] for g in found] == ["matrices", "no-decay"]
    assert named(model, found)["matrices"] == ["0.proj.weight"]
    assert found[1]["rotational"] is False
    with pytest.raises(ValueError, match=r"no_decay: 'haed' matches no parameter of Sequential"):
        groups(model, no_decay=["haed"])
    with pytest.raises(ValueError, match=r"no_decay='head' is not valid: give a list"):
        groups(model, no_decay="head")


def test_frozen_parameters_are_left_out() -> None:
    model = own()
    model.layers[0].requires_grad_(False)
    model.norm.requires_grad_(False)
    names = [name for part in named(model, groups(model)).values() for name in part]
    assert set(names) == {n for n, p in model.named_parameters() if p.requires_grad}
    model.layers.requires_grad_(False)
    found = groups(model, by_layer=True)
    assert [g["name"] for g in found] == ["input no-decay", "output head"]
    model.requires_grad_(False)
    with pytest.raises(ValueError, match=r"Transformer has no parameter that requires a gradient"):
        groups(model)


# ---------------------------------------------------------------------- the head


def test_a_head_that_is_told_by_its_size() -> None:
    """32 tokens of width 8, and feed-forward maps in the layers that have the head's shape too."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)

    class Model(nn.Module):
        def __init__(self, layers: int, heads: int, tied: bool = False) -> None:
            super().__init__()
            self.positions, self.tokens = nn.Embedding(9, 8), nn.Embedding(32, 8)
            self.only = nn.Linear(8, 8)
            self.first, self.blocks = Layer(), nn.Sequential(*[Layer() for _ in range(layers)])
            self.heads = nn.ModuleList(nn.Linear(8, 32, bias=False) for _ in range(heads))
            if tied:
                self.heads[0].weight = self.tokens.weight

    def found(model: nn.Module) -> list[str]:
        return named(model, groups(model)).get("head", [])

    assert found(Model(3, 1)) == ["heads.0.weight"]
    assert found(Model(1, 2)) == ["heads.0.weight", "heads.1.weight"]
    assert found(Model(3, 1, tied=True)) == []
    assert found(nn.Sequential(Model(3, 1))) == ["0.heads.0.weight"]  # this number is no layer's
    compiled = Model(2, 1)
    compiled.blocks[0] = torch.compile(compiled.blocks[0])  # type: ignore[assignment]
    assert found(compiled) == ["heads.0.weight"]
    assert found(nn.Sequential(nn.Embedding(32, 8), nn.Linear(8, 32))) == ["1.weight"]
    assert found(nn.Sequential(nn.Embedding(32, 8), nn.Linear(8, 31))) == []
    assert found(nn.Sequential(nn.Linear(8, 32), nn.Linear(32, 8))) == []
    config = ModelConfig(layers=2, width=8, heads=2, vocab_size=32, feed_forward=32, tied=True)
    assert found(Transformer(config)) == []  # maps of that shape in the layers, and no others
    frozen = Model(1, 1)
    frozen.heads.requires_grad_(False)
    assert found(frozen) == []


def test_a_head_in_front_of_the_layers_goes_with_the_output() -> None:
    """By its rate too, which is the full one."""

    class Model(nn.Module):
        residual_branches = ("layers.{l}.end",)

        def __init__(self) -> None:
            super().__init__()
            self.head, self.tokens = nn.Linear(4, 6), nn.Embedding(6, 4)
            self.layers = nn.ModuleList(nn.ModuleDict({"end": nn.Linear(4, 4)}) for _ in range(2))

    found = groups(Model(), layer_decay=0.5, lr=1.0)
    rates = {g["name"]: g["lr"] for g in found}
    assert rates["output head"] == 1.0
    assert rates["input no-decay"] == 0.125


def test_what_has_no_head_or_asks_for_more_is_left_alone() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.map = nn.Linear(3, 3)

        def get_output_embeddings(self) -> nn.Module:
            raise NotImplementedError

        def get_classifier(self, name: str) -> nn.Module:
            return self.map

    assert [g["name"] for g in groups(Part())] == ["matrices", "no-decay"]


def test_classifiers_of_hugging_face() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "vocab_size": 64, "hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 16, "num_labels": 5,
    }  # fmt: skip
    llama, roberta = transformers.LlamaConfig, transformers.RobertaConfig
    cases = {
        transformers.LlamaForSequenceClassification: (llama, ["score.weight"]),
        transformers.RobertaForSequenceClassification: (roberta, ["classifier.out_proj.weight"]),
        transformers.LlamaModel: (llama, []),
    }
    for cls, (config, expected) in cases.items():
        model = cls(config(**sizes))
        assert named(model, groups(model)).get("head", []) == expected


def test_adapted_models_keep_their_head_apart() -> None:
    transformers, peft = pytest.importorskip("transformers"), pytest.importorskip("peft")
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=8, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=16,
    )  # fmt: skip
    adapters = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["lm_head"])
    model = peft.get_peft_model(transformers.LlamaForCausalLM(config), adapters)
    found = named(model, groups(model))
    assert found["head"] == ["base_model.model.lm_head.modules_to_save.default.weight"]
    assert len(found["matrices"]) == 4


def gpt2() -> nn.Module:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 8, "n_head": 2, "vocab_size": 16, "n_positions": 8}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes))


def test_weights_in_out_of_gpt2() -> None:
    model = gpt2()
    conv = [n for n, p in model.named_parameters() if re.search(r"c_(attn|proj|fc)\.weight$", n)]
    assert len(conv) == 8
    found = groups(model, 0.3)
    assert [{k: v for k, v in g.items() if k != "params"} for g in found] == [
        {"weight_decay": 0.3, "name": "matrices [in, out]", "out_dim": 1},
        {"weight_decay": 0.0, "name": "no-decay", "rotational": False},
    ]
    assert named(model, found)["matrices [in, out]"] == conv
    layered = groups(model, by_layer=True)
    assert [g["name"] for g in layered if g.get("out_dim") == 1] == [
        "layer 1 matrices [in, out]", "layer 2 matrices [in, out]",
    ]  # fmt: skip
    assert [g["name"] for g in groups(model, muon=True)] == ["hidden", "no-decay"]
    assert not any("out_dim" in g for g in groups(model, muon=True))
    both = nn.Sequential(model, nn.Linear(8, 8))
    names = ["matrices", "matrices [in, out]", "no-decay"]
    assert [g["name"] for g in groups(both)] == names

    optimizer = create("lionar", found, lr=1e-2)
    weights = {n: model.get_parameter(n) for n in conv}
    before = {n: p.detach().clone() for n, p in weights.items()}
    tokens = torch.randint(0, 16, (2, 8))
    for _ in range(20):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for n, p in weights.items():
        torch.testing.assert_close(p.norm(dim=0), before[n].norm(dim=0), rtol=1e-6, atol=0)
        assert (p.norm(dim=1) / before[n].norm(dim=1) - 1).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_group_of_its_own_changes_no_number(name: str) -> None:
    """Of optimizers that turn nothing."""
    weights = []
    for apart in (True, False):
        model = own()
        found = groups(model, 0.3)
        if not apart:
            found[0]["params"] += found.pop(1)["params"]
        optimizer = create(name, found, lr=1e-2)
        for step in range(3):
            model(torch.arange(8)[None] + step, torch.arange(8)[None]).total.backward()
            optimizer.step()
            optimizer.zero_grad()
        weights.append([p.detach() for p in model.parameters()])
    assert all(torch.equal(p, q) for p, q in zip(*weights, strict=True))


# ---------------------------------------------------------------------- layers


def test_by_layer_of_an_own_model() -> None:
    found = groups(own(layers=2), by_layer=True)
    assert [(g["name"], g["layer"], len(g["params"])) for g in found] == [
        ("input no-decay", None, 1),
        ("layer 1 matrices", 1, 7),
        ("layer 1 no-decay", 1, 2),
        ("layer 2 matrices", 2, 7),
        ("layer 2 no-decay", 2, 2),
        ("output head", None, 1),
        ("output no-decay", None, 1),
    ]


def test_layers_of_an_unknown_model_are_told_by_patterns() -> None:
    net = toy.Net(layers=3)
    with pytest.raises(ValueError, match=r"no residual branches are known for Net"):
        groups(net, by_layer=True)
    found = groups(net, by_layer=True, branches=toy.PATTERNS)
    assert [g["layer"] for g in found] == [None, None, 1, 1, 2, 2, 3, 3]
    assert named(net, found)["layer 2 matrices"] == [
        "layers.1.mix.inp.weight", "layers.1.mix.out.weight", "layers.1.mlp.0.weight",
        "layers.1.mlp.2.weight",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"branches=.* would be ignored"):
        groups(net, branches=toy.PATTERNS)


def test_several_stacks_count_each_for_itself() -> None:
    model = nn.Transformer(8, 2, num_encoder_layers=2, num_decoder_layers=3, dim_feedforward=8)
    found = groups(model, by_layer=True)
    layers = [(g["name"], g["layer"]) for g in found if "matrices" in g["name"]]
    assert layers == [(f"encoder.layers layer {l} matrices", l) for l in (1, 2)] + [
        (f"decoder.layers layer {l} matrices", l) for l in (1, 2, 3)
    ]


def test_layer_decay_against_a_loop() -> None:
    """BEiT: the rate of layer number i of 0 … L + 1 is η·c^(L + 1 − i)."""
    model, eta, c = own(layers=4), 0.02, 0.75
    found = groups(model, layer_decay=c, lr=eta)
    numbers = {"embedding": 0, "norm": 5, "head": 5}
    rates = {id(p): g["lr"] for g in found for p in g["params"]}
    for name, p in model.named_parameters():
        parts = name.split(".")
        number = int(parts[1]) + 1 if parts[0] == "layers" else numbers[parts[0]]
        rate = eta
        for _ in range(5 - number):
            rate *= c
        assert rates[id(p)] == pytest.approx(rate, rel=1e-12)
    optimizer = torch.optim.AdamW(found, lr=1.0)
    assert [g["lr"] for g in optimizer.param_groups] == [g["lr"] for g in found]
    assert [g["lr"] for g in groups(model, lr=eta)] == [eta, eta, eta]


def test_hidden_matrices_for_muon() -> None:
    model = own()
    found = groups(model, muon=True)
    assert [(g["name"], g["use_muon"]) for g in found] == [
        ("hidden", True), ("head", False), ("no-decay", False),
    ]  # fmt: skip
    names = named(model, found)
    assert names["head"] == ["head.weight"]
    inside = [n for n, p in model.named_parameters() if n.startswith("layers.") and p.ndim == 2]
    assert names["hidden"] == inside
    hidden = [g["name"] for g in groups(model, muon=True, by_layer=True) if g["use_muon"]]
    assert hidden == [f"layer {l} hidden" for l in (1, 2, 3)]


def test_experts_and_convolutions_are_not_for_muon() -> None:
    pytest.importorskip("transformers")
    model = next(specimen for specimen in SPECIMENS if specimen.name == "gpt-oss").build()
    names = named(model, groups(model, muon=True))
    assert "model.layers.0.mlp.experts.down_proj" in names["matrices"]
    assert "model.layers.0.self_attn.o_proj.weight" in names["hidden"]
    assert all(model.get_parameter(name).ndim == 2 for name in names["hidden"])


# ---------------------------------------------------------------------- wrappers, checkpoints


def sizes(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(g["name"], g["weight_decay"], g.get("layer"), len(g["params"])) for g in found]


def test_wrappers_change_nothing(process_group: None) -> None:
    expected = sizes(groups(own(), by_layer=True, no_decay=["layers.1.attention.branch.key.*"]))
    assert ("layer 2 no-decay", 0.0, 2, 3) in expected
    sharded = own()
    for layer in sharded.layers:
        fully_shard(layer)
    fully_shard(sharded)
    per_block = own()
    for layer in per_block.layers:
        layer.compile()
    inside = own()
    inside.layers[1] = torch.compile(inside.layers[1])  # type: ignore[assignment]
    ddp = nn.parallel.DistributedDataParallel
    for model in (
        torch.compile(own()), ddp(own()), torch.compile(ddp(own())), ddp(torch.compile(own())),
        per_block, inside, sharded,
    ):  # fmt: skip
        found = groups(model, by_layer=True, no_decay=["layers.1.attention.branch.key.*"])
        assert sizes(found) == expected
        assert {id(p) for g in found for p in g["params"]} == {id(p) for p in model.parameters()}


def test_fsdp1_is_refused(process_group: None) -> None:
    model = FullyShardedDataParallel(own(), use_orig_params=True, device_id=torch.device("cpu"))
    with pytest.raises(ValueError, match=r"FSDP1 makes vectors of all parameters"):
        groups(model)


@pytest.mark.parametrize("flat", [True, False])
def test_keys_are_harmless_in_checkpoints(flat: bool) -> None:
    options = StateDictOptions(flatten_optimizer_state_dict=flat)

    def trained(steps: int) -> tuple[Transformer, torch.optim.Optimizer]:
        model = own()
        optimizer = torch.optim.AdamW(groups(model, by_layer=True, muon=True), lr=1e-2)
        for _ in range(steps):
            model(torch.arange(8)[None], torch.arange(8)[None]).total.backward()
            optimizer.step()
            optimizer.zero_grad()
        return model, optimizer

    model, optimizer = trained(2)
    state = get_optimizer_state_dict(model, optimizer, options=options)
    other, fresh = trained(0)
    set_optimizer_state_dict(other, fresh, state, options=options)
    for group, loaded in zip(optimizer.param_groups, fresh.param_groups, strict=True):
        assert {**group, "params": 0} == {**loaded, "params": 0}
        for p, q in zip(group["params"], loaded["params"], strict=True):
            assert torch.equal(optimizer.state[p]["exp_avg"], fresh.state[q]["exp_avg"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weight_decay": -0.1}, r"weight_decay=-0.1 is not valid"),
        ({"lr": 0.0}, r"lr=0.0 is not valid"),
        ({"layer_decay": 0.0, "lr": 1.0}, r"layer_decay=0.0 is not valid"),
        ({"layer_decay": 1.1, "lr": 1.0}, r"layer_decay=1.1 is not valid"),
        ({"layer_decay": 0.9}, r"layer_decay=0.9 is a factor of the rate: give lr"),
    ],
)
def test_bad_settings(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        groups(own(), **arguments)


def test_no_module() -> None:
    with pytest.raises(ValueError, match=r"model of type list is no torch.nn.Module"):
        groups([nn.Parameter(torch.ones(2))])  # type: ignore[arg-type]
