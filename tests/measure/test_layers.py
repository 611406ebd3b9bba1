"""What observers see of layers, against forwards taken apart by hand and peers' own outputs."""

from __future__ import annotations

import importlib
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import groundup as gu
from groundup.measure import find_layers, observe, similarity
from groundup.measure.positions import bins
from groundup.model import ModelConfig, Transformer
from groundup.model.rotary import Rotary

LAYERS, WIDTH, VOCABULARY, LENGTH = 3, 16, 40, 12


def transformer(placement: str = "pre", seed: int = 0) -> Transformer:
    model = Transformer(
        ModelConfig(layers=LAYERS, width=WIDTH, heads=2, vocab_size=VOCABULARY, placement=placement)  # type: ignore[arg-type]
    )
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():  # larger than at the start, so that layers matter
            p.add_(0.1 * torch.randn(p.shape, generator=draw))
    return model


def tokens(seed: int = 0, batch: int = 2) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randint(0, VOCABULARY, (batch, LENGTH + 1), generator=draw)
    return rows[:, :-1], rows[:, 1:]


def train_once(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 7) -> None:
    inputs, targets = tokens(seed)
    output = model(inputs)
    logits = getattr(output, "logits", output)
    optimizer.zero_grad()
    F.cross_entropy(logits.flatten(0, 1), targets.flatten()).backward()
    optimizer.step()


def measured(model: nn.Module, what: list[str], **kind: Any) -> dict[str, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    with observe(model, optimizer, what, **kind) as observer:
        train_once(model, optimizer)
    return observer.latest


def by_hand(model: Transformer, inputs: Tensor) -> tuple[list[Tensor], dict[str, list[Tensor]]]:
    """The stream before and after each layer, and what each branch gives, in float64."""
    model = model.double()
    with torch.no_grad():
        x = model.embedding(inputs)
        rotary = Rotary.of(inputs.shape[1], model.config, like=x)
        stream, added = [x], {"attention": [], "feed_forward": []}
        for layer in model.layers:
            for name, args in (("attention", (rotary,)), ("feed_forward", ())):
                place = getattr(layer, name)
                inside = place.norm(x) if model.config.placement == "pre" else x
                y = place.branch(inside, *args)
                added[name].append(y)
                x = x + y if model.config.placement == "pre" else place.norm(x + y)
            stream.append(x)
    model.float()
    return stream, added


@pytest.mark.parametrize("placement", ["pre", "post"])
@pytest.mark.parametrize("attached", [False, True])
def test_the_stream_against_a_forward_by_hand(placement: str, attached: bool) -> None:
    model = transformer(placement)
    probe, _ = tokens(1)
    if attached:  # then branches give α times what they would: 1/2, 1/4, 1/6
        gu.attach(model, gu.depth.linear(T=2)).at(1)
    stream, added = by_hand(model, probe)
    found = measured(model, ["stream"], probe=probe)
    norms = [x.norm(dim=-1) for x in stream]
    assert found["stream_norm/layers"] == pytest.approx([float(n.mean()) for n in norms[1:]])
    assert found["stream_max/layers"] == pytest.approx([float(x.abs().max()) for x in stream[1:]])
    apart = ~torch.eye(LENGTH, dtype=torch.bool)
    pairs = [F.cosine_similarity(x[:, :, None], x[:, None], dim=-1)[:, apart] for x in stream[1:]]
    assert found["stream_alike/layers"] == pytest.approx([float(p.mean()) for p in pairs], rel=1e-4)
    cosines = [F.cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(stream[1:])]
    assert found["stream_next/layers"][:-1] == pytest.approx([float(c) for c in cosines], rel=1e-4)
    assert found["stream_next/layers"][-1] is None
    for name, outputs in added.items():
        sizes = [y.norm(dim=-1) for y in outputs]
        ratios = [(s / n).mean() for s, n in zip(sizes, norms[:-1], strict=True)]
        means = [float(s.mean()) for s in sizes]
        assert found[f"branch_norm/{name}/layers"] == pytest.approx(means)
        assert found[f"branch_ratio/{name}/layers"] == pytest.approx([float(r) for r in ratios])
        nexts = [F.cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(outputs)]
        assert found[f"branch_next/{name}/layers"][:-1] == pytest.approx(
            [float(c) for c in nexts], rel=1e-3, abs=1e-5
        )


def test_layers_of_known_models() -> None:
    llama, gpt2, t5 = hugging_face()
    assert [layer.name for layer in find_layers(llama)] == ["model.layers.0", "model.layers.1"]
    assert list(find_layers(llama)[0].branches) == ["self_attn", "mlp"]
    assert list(find_layers(gpt2)[0].branches) == ["attn", "mlp"]
    assert list(find_layers(t5)[0].branches) == ["SelfAttention", "DenseReluDense"]
    assert list(find_layers(t5)[-1].branches) == [
        *("SelfAttention", "EncDecAttention", "DenseReluDense")
    ]
    assert list(find_layers(transformer())[0].branches) == ["attention", "feed_forward"]


def hugging_face() -> tuple[Any, Any, Any]:
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": VOCABULARY, "attn_implementation": "eager"}
    llama = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=WIDTH,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            initializer_range=0.3,
            **sizes,
        )
    )
    gpt2 = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(
            n_embd=WIDTH, n_layer=2, n_head=2, n_positions=LENGTH, initializer_range=0.3, **sizes
        )
    )
    t5 = transformers.T5ForConditionalGeneration(
        transformers.T5Config(
            d_model=WIDTH, d_kv=8, d_ff=24, num_layers=2, num_heads=2, vocab_size=VOCABULARY
        )
    )
    return llama, gpt2, t5


@pytest.mark.parametrize("which", [0, 1], ids=["llama", "gpt2"])
def test_hugging_face_says_the_same_of_its_own_models(which: int) -> None:
    model = hugging_face()[which].eval()
    probe, targets = tokens(1)
    with torch.no_grad():
        said = model(probe, output_hidden_states=True, output_attentions=True)
        logits = model.double()(probe).logits
        model.float()
    what = ["stream", "attention", "positions", "depth"]
    found = measured(model, what, probe={"input_ids": probe}, targets=targets)
    # The last of its hidden states has gone through the final norm.
    norm = said.hidden_states[1].norm(dim=-1).mean()
    assert found["stream_norm/layers"][0] == pytest.approx(float(norm), rel=1e-5)
    entropies = [torch.special.entr(a).sum(-1).mean() for a in said.attentions]
    assert found["attention_entropy/layers"] == pytest.approx(
        [float(e) for e in entropies], rel=1e-5
    )
    losses = F.cross_entropy(logits.transpose(1, 2), targets, reduction="none").mean(0)
    edges = bins(LENGTH)
    assert found["loss_bins"] == edges
    assert found["loss/positions"] == pytest.approx(
        [float(losses[a:b].mean()) for a, b in pairwise(edges)], rel=1e-5
    )
    assert found["probe_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
    assert len(found["skip_loss/layers"]) == 2


@pytest.mark.parametrize("placement", ["pre", "sandwich", "output"])
def test_a_skipped_layer_is_one_that_is_not_there(placement: str) -> None:
    model = transformer(placement)
    probe, targets = tokens(2)

    def loss(without: int | None) -> float:
        x = model.embedding(probe)
        rotary = Rotary.of(LENGTH, model.config, like=x)
        for l, layer in enumerate(model.layers):
            x = x if l == without else layer(x, rotary)
        logits = model.head(model.norm(x)).double()
        return float(F.cross_entropy(logits.flatten(0, 1), targets.flatten()))

    with torch.no_grad():
        whole, *without = (loss(l) for l in (None, *range(LAYERS)))
    found = measured(model, ["depth"], probe=probe, targets=targets)
    assert found["probe_loss"] == pytest.approx(whole, rel=1e-6)
    assert found["skip_loss/layers"] == pytest.approx([w - whole for w in without], abs=2e-6)


def test_skipping_in_post_ln_leaves_the_norms() -> None:
    model = transformer("post")
    probe, targets = tokens(2)
    with torch.no_grad():
        x = model.embedding(probe)
        rotary = Rotary.of(LENGTH, model.config, like=x)
        for l, layer in enumerate(model.layers):
            one = l == 1
            x = layer.feed_forward.norm(layer.attention.norm(x)) if one else layer(x, rotary)
        logits = model.head(model.norm(x))
        expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten())
    found = measured(model, ["depth"], probe=probe, targets=targets)
    rise = found["skip_loss/layers"][1]
    assert found["probe_loss"] + rise == pytest.approx(float(expected), rel=1e-6)


def test_updates_and_gradients_by_layer() -> None:
    model = transformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    observer = observe(model, optimizer, ["updates", "gradients"])
    before = {name: p.detach().clone().double() for name, p in model.named_parameters()}
    train_once(model, optimizer)
    for l in range(LAYERS):
        own = {n: p for n, p in model.named_parameters() if n.startswith(f"layers.{l}.")}
        gradient = torch.cat([p.grad.double().flatten() for p in own.values()])  # type: ignore[union-attr]
        old = torch.cat([before[n].flatten() for n in own])
        new = torch.cat([p.detach().double().flatten() for p in own.values()])
        found = observer.latest
        assert found["grad_norm/layers"][l] == pytest.approx(float(gradient.norm()), rel=1e-6)
        moved = (new - old).norm()
        assert found["update_norm/layers"][l] == pytest.approx(float(moved), rel=1e-6)
        assert found["relative_update/layers"][l] == pytest.approx(float(moved / old.norm()))
        cosine = F.cosine_similarity(old, new, dim=0)
        assert found["angle/layers"][l] == pytest.approx(float(cosine.arccos()), rel=1e-3)
    total = torch.cat([p.grad.double().flatten() for p in model.parameters()])  # type: ignore[union-attr]
    assert found["grad_norm"] == pytest.approx(float(total.norm()), rel=1e-6)


def test_sketches_say_when_a_branch_is_what_it_will_be() -> None:
    model = transformer()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    probe, _ = tokens(3, batch=8)
    observer = observe(model, optimizer, ["similarity"], every=10, probe=probe)
    first = observer.look(0)["sketch/attention/layers"]
    _, added = by_hand(model, probe)
    for step in range(30):
        train_once(model, optimizer, step)
    last = observer.look(30)["sketch/attention/layers"]
    _, later = by_hand(model, probe)
    for l in range(LAYERS):
        exact = F.cosine_similarity(added["attention"][l], later["attention"][l], dim=-1).mean()
        error = similarity.standard_error(float(exact))
        assert similarity.compare(first[l], last[l]) == pytest.approx(float(exact), abs=4 * error)


def test_vision_transformers_are_seen_too() -> None:
    import tests.torchvision_shim  # noqa: F401

    vit = importlib.import_module("timm.models.vision_transformer")
    model = vit.VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=3, num_heads=2, num_classes=5
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    images, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 3])
    what = ["stream", "attention", "depth", "gradients"]
    observer = observe(model, optimizer, what, probe=images, targets=labels)
    F.cross_entropy(model(images), labels).backward()
    optimizer.step()
    found = observer.look(1)
    sizes: list[float] = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, y: sizes.append(float(y.norm(dim=-1).mean())))
    with torch.no_grad():
        probability = model.eval()(images).softmax(-1)[torch.arange(4), labels]
    assert found["stream_norm/layers"] == pytest.approx(sizes, rel=1e-5)
    assert found["probe_loss"] == pytest.approx(-float(probability.log().mean()), rel=1e-5)
    assert {"stream_norm/layers", "attention_uniform/layers", "skip_loss/layers"} <= found.keys()
    assert all(value is not None for value in found["attention_entropy/layers"])


@pytest.mark.parametrize("compiled", [False, True])
def test_training_goes_on_to_the_bit(compiled: bool) -> None:
    probe, targets = tokens(4)

    def trained(what: list[str] | None) -> tuple[list[Tensor], int]:
        torch.compiler.reset()
        torch._dynamo.utils.counters.clear()
        model = transformer()
        warmup = gu.attach(model, gu.depth.linear(T=2))
        if compiled:
            for layer in model.layers:
                layer.compile()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        warmup.follow(optimizer)
        if what is not None:
            observe(model, optimizer, what, every=2, probe=probe, targets=targets)
        for step in range(6):
            train_once(model, optimizer, step)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        return [p.detach().clone() for p in model.parameters()], graphs

    plain, graphs = trained(None)
    what = ["stream", "attention", "similarity", "depth", "positions", "gradients"]
    seen, more = trained(what)
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))
    assert graphs == more


def test_what_cannot_be_measured_is_said() -> None:
    model = transformer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    probe, targets = tokens()
    for message, what, kind in (
        ("needs targets", ["depth"], {"probe": probe}),
        ("give a probe", ["similarity"], {}),
        ("targets would be ignored", ["depth"], {"targets": targets}),
        ("targets would be ignored", ["stream"], {"probe": probe, "targets": targets}),
        ("probe would be ignored", ["gradients"], {"probe": probe}),
        ("without a position", ["positions"], {"probe": probe, "targets": targets[:, 0]}),
    ):
        with pytest.raises(ValueError, match=message):
            observe(model, optimizer, what, **kind)
    other = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="no residual branches are known for Sequential"):
        observe(other, torch.optim.SGD(other.parameters(), lr=0.1), ["stream"])
