"""Checkpoints from elsewhere: fairseq's files in their true form, Hugging Face folders, and what must be refused."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mert_core.errors import MertError
from mert_core.model.checkpoint import fingerprint
from mert_core.model.convert import Imported, import_checkpoint
from mert_core.model.heads import Heads
from mert_core.model.mert import MertModel
from tests.model.test_checkpoint import fairseq, parametrised
from tests.model.test_hubert_parity import SMALL

CODEBOOKS, ENTRIES, FINAL_DIM = 3, 16, 8
LABELS = torch.rand(CODEBOOKS, ENTRIES, FINAL_DIM, generator=torch.Generator().manual_seed(9))
SPECIALS = torch.full((CODEBOOKS, 4, FINAL_DIM), 7.0)


@pytest.fixture
def dictionary_class() -> Iterator[type]:
    """fairseq's Dictionary, importable only while the file is made."""

    class Dictionary:
        def __init__(self, order: list[int]) -> None:
            self.symbols = ["<s>", "<pad>", "</s>", "<unk>", *map(str, order)]
            self.count = [1] * len(self.symbols)
            self.indices = {symbol: row for row, symbol in enumerate(self.symbols)}

    modules = {name: ModuleType(name) for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary")}
    modules["fairseq.data.dictionary"].Dictionary = Dictionary  # type: ignore[attr-defined]
    Dictionary.__module__, Dictionary.__qualname__ = "fairseq.data.dictionary", "Dictionary"
    sys.modules.update(modules)
    yield Dictionary
    for name in modules:
        sys.modules.pop(name, None)


def settings(**changes: Any) -> dict[str, Any]:
    return {
        "_name": "mert",
        "encoder_embed_dim": 48,
        "encoder_layers": 3,
        "encoder_attention_heads": 4,
        "encoder_ffn_embed_dim": 96,
        "layer_norm_first": True,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "dropout_input": 0.1,
        "encoder_layerdrop": 0.05,
        "feature_grad_mult": 0.1,
        "conv_feature_layers": "[(24,10,5)] + [(24,3,2)] * 4 + [(24,2,2)] * 2",
        "conv_pos": 16,
        "conv_pos_groups": 4,
        "extractor_mode": "default",
        "activation_fn": "gelu",
        "conv_bias": False,
        "deepnorm": False,
        "attention_relax": -1.0,
        "untie_final_proj": True,
        "target_glu": False,
        "logit_temp": 0.1,
        **changes,
    }


def own_heads(seed: int = 0) -> Heads:
    return Heads(48, {"encodec": (CODEBOOKS, ENTRIES)}, {"cqt": 336}, FINAL_DIM, 0.1, seed)


def model_tensors(seed: int = 5) -> dict[str, Tensor]:
    """Return an encoder and heads under fairseq's names."""
    shape = replace(SMALL, do_stable_layer_norm=True)
    tensors = {fairseq(name): value.detach() for name, value in MertModel(shape, seed).named_parameters()}
    heads = own_heads(seed)
    return tensors | {
        "final_proj.weight": heads.codes["encodec"].final_proj.weight.detach(),
        "final_proj.bias": heads.codes["encodec"].final_proj.bias.detach() + 1,
        "label_embs_concat": torch.cat([SPECIALS, LABELS], dim=1).flatten(0, 1),
        "encoder_cqt_model.fc.weight": heads.spectra["cqt"].weight.detach(),
        "encoder_cqt_model.fc.bias": heads.spectra["cqt"].bias.detach(),
        "encoder_cqt_model.spec_layer.cqt_kernels_real": torch.zeros(336, 1, 64),
    }


def checkpoint(tensors: dict[str, Tensor], configuration: Any, dictionaries: list[Any]) -> dict[str, Any]:
    """Return the content of a fairseq checkpoint, with all that stands beside its weights."""
    return {
        "args": None,
        "cfg": configuration,
        "model": tensors,
        "criterion": None,
        "optimizer_history": [{"criterion_name": "HubertCriterion", "num_updates": 7, "best_loss": np.float64(3.5)}],
        "task_state": {"dictionaries": dictionaries},
        "extra_state": {"epoch": 1, "previous_training_time": np.float32(2.5), "args": argparse.Namespace(a=1)},
        "last_optimizer_state": {"state": {0: {"step": 7, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 5e-4}]},
    }


def import_file(folder: Path, content: dict[str, Any], **options: Any) -> Imported:
    """Write a file, and import it to the folder's ``out``."""
    torch.save(content, folder / "a.pt", **options)
    return import_checkpoint(folder / "a.pt", folder / "out")


def assert_taken_over(to: Path, tensors: dict[str, Tensor], labels: Tensor = LABELS) -> None:
    loaded = dict(MertModel.from_pretrained(to).named_parameters())
    assert all(torch.equal(value, tensors[fairseq(name)]) for name, value in loaded.items())
    heads = own_heads()
    heads.load(to)
    assert torch.equal(heads.codes["encodec"].codebook_embeddings, labels)
    assert torch.equal(heads.codes["encodec"].final_proj.bias, tensors["final_proj.bias"])
    assert torch.equal(heads.spectra["cqt"].weight, tensors["encoder_cqt_model.fc.weight"])


def test_a_fairseq_checkpoint_in_its_true_form(tmp_path: Path, dictionary_class: type) -> None:
    tensors = model_tensors()
    order = np.random.default_rng(0).permutation(ENTRIES).tolist()  # dictionaries list labels by frequency
    inverse = np.argsort(order)
    shuffled = LABELS[:, order]
    tensors["label_embs_concat"] = torch.cat([SPECIALS, shuffled], dim=1).flatten(0, 1)
    cfg = {"model": settings(), "task": {"_name": "mert_pretraining", "sample_rate": 24000, "labels": ["encodec_0"]}}
    torch.save(checkpoint(tensors, cfg, [dictionary_class(order)] * CODEBOOKS), tmp_path / "mert.pt")
    for name in ("fairseq", "fairseq.data", "fairseq.data.dictionary"):
        del sys.modules[name]
    done = import_checkpoint(tmp_path / "mert.pt", tmp_path / "out")
    assert (done.codes, done.spectra) == ({"encodec": (CODEBOOKS, ENTRIES)}, {"cqt": 336})
    assert done.sha256 == fingerprint(tmp_path / "out")
    assert_taken_over(tmp_path / "out", tensors, shuffled[:, inverse])
    config = MertModel.from_pretrained(tmp_path / "out").config
    assert config.do_stable_layer_norm and config.num_attention_heads == 4 and config.layerdrop == 0.05
    assert config.feature_grad_mult == 0.1 and config.final_dim == FINAL_DIM and config.attention_relax == 0
    assert "fairseq" not in sys.modules


def test_omegaconf_and_argparse_configurations_are_read_as_data(tmp_path: Path) -> None:
    from omegaconf import OmegaConf

    tensors = model_tensors()
    content = checkpoint(tensors, OmegaConf.create({"model": settings(), "task": {"sample_rate": 24000}}), [])
    torch.save(content, tmp_path / "omega.pt")
    import_checkpoint(tmp_path / "omega.pt", tmp_path / "omega")
    assert_taken_over(tmp_path / "omega", tensors)
    torch.save(content | {"cfg": None, "args": argparse.Namespace(**settings())}, tmp_path / "old.pt")
    import_checkpoint(tmp_path / "old.pt", tmp_path / "old")
    assert fingerprint(tmp_path / "old") == fingerprint(tmp_path / "omega")


def test_labels_read_from_arrays_are_row_numbers(tmp_path: Path) -> None:
    tensors = model_tensors()
    tensors["label_embs_concat"] = torch.cat([LABELS, SPECIALS], dim=1).flatten(0, 1)
    cfg = {"model": settings(), "task": {"numpy_memmap_label": True}}
    import_file(tmp_path, checkpoint(tensors, cfg, []))
    assert_taken_over(tmp_path / "out", tensors)


def test_tables_without_special_rows_and_heads_trained_one_by_one(tmp_path: Path) -> None:
    tensors = model_tensors()
    expected = dict(tensors)
    tensors["label_embs_concat"] = LABELS.flatten(0, 1)
    tensors["logit_temp_list"] = torch.tensor([1.0, 2.0, 3.0])
    for part in ("weight", "bias"):
        for number, piece in enumerate(tensors.pop(f"final_proj.{part}").split(FINAL_DIM)):
            tensors[f"final_projs.{number}.{part}"] = piece
    import_file(tmp_path, checkpoint(tensors, {"model": settings()}, []))
    stored = load_file(tmp_path / "out" / "heads.safetensors")
    assert torch.equal(stored["codes.encodec.final_proj.weight"], expected["final_proj.weight"])
    assert torch.equal(stored["codes.encodec.log_scales"], tensors["logit_temp_list"])


def test_everything_that_does_not_fit_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    tensors = model_tensors()
    del tensors["mask_emb"], tensors["final_proj.bias"]
    tensors["encoder.layers.0.fc1.weight"] = torch.zeros(3, 3)
    tensors["rel_attn_embed"] = torch.zeros(2)
    tensors["encoder_cqt_model.bn.weight"] = torch.zeros(2)
    with pytest.raises(MertError, match=r"missing: final_proj\.bias[\s\S]*unknown: encoder_cqt_model\.bn\.weight"):
        import_file(tmp_path, checkpoint(tensors, {"model": settings()}, []))
    with pytest.raises(MertError) as caught:
        import_checkpoint(tmp_path / "a.pt", tmp_path / "out", encoder_only=True)
    text = str(caught.value)
    assert "missing: masked_spec_embed" in text and "unknown: rel_attn_embed" in text
    assert "misshapen: encoder.layers.0.feed_forward.intermediate_dense.weight is (3, 3), expected (96, 48)" in text
    assert not (tmp_path / "out").exists()


def test_another_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MertError, match=r"conv_bias=True .*subln=True"):
        import_file(tmp_path, checkpoint(model_tensors(), {"model": settings(subln=True, conv_bias=True)}, []))
    with pytest.raises(MertError, match="no published size"):
        import_file(tmp_path, {"model": model_tensors()})


class Hostile:
    """Writes a file when it is unpickled, by Python or by the system."""

    def __init__(self, path: Path, by_system: bool) -> None:
        self.call = (os.system, (f"touch {path}",)) if by_system else (Path.touch, (path,))

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("by_system", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_that_would_run_code_runs_none(tmp_path: Path, by_system: bool, zipped: bool) -> None:
    extra = Hostile(tmp_path / "trace", by_system)
    content = checkpoint(model_tensors(), {"model": settings()}, []) | {"extra": extra}
    with pytest.raises(MertError, match=r"not read|without running its code"):
        import_file(tmp_path, content, _use_new_zipfile_serialization=zipped)
    assert not (tmp_path / "trace").exists() and not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"garbage" * 100, b"PK\x03\x04garbage"])
def test_damaged_files_are_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(MertError, match=r"a\.pt"):
        import_checkpoint(tmp_path / "a.pt", tmp_path / "out")
    with pytest.raises(MertError, match="does not exist"):
        import_checkpoint(tmp_path / "b.pt", tmp_path / "out")


@pytest.mark.parametrize("model_type", ["hubert", "mert_model"])
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("new_names", [False, True])
def test_hugging_face_folders(tmp_path: Path, model_type: str, binary: bool, new_names: bool) -> None:
    folder = tmp_path / "source"
    model = MertModel(SMALL, seed=4)
    model.save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("mert_model", model_type), encoding="utf-8")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors = {parametrised(name) if new_names else name: value for name, value in tensors.items()}
    if binary:
        torch.save(tensors, folder / "pytorch_model.bin")
    else:
        save_file(tensors, folder / "model.safetensors")
    done = import_checkpoint(folder, tmp_path / "out")
    assert done.codes == {} and not (tmp_path / "out" / "heads.safetensors").exists()
    for name, value in MertModel.from_pretrained(tmp_path / "out").named_parameters():
        assert torch.equal(value, dict(model.named_parameters())[name])


TEACHERS: list[tuple[dict[str, tuple[int, int]], dict[str, int]]] = [
    ({"rvqvae": (CODEBOOKS, ENTRIES)}, {"cqt": 336}),
    ({"rvqvae": (CODEBOOKS, ENTRIES), "logmel-kmeans": (1, 7)}, {"logmel": 128, "chroma": 48}),
    ({}, {"cqt": 336}),
]


@pytest.mark.parametrize(("codes", "spectra"), TEACHERS)
def test_our_own_heads_travel_along_and_encoder_only_leaves_them(
    tmp_path: Path, codes: dict[str, tuple[int, int]], spectra: dict[str, int]
) -> None:
    MertModel(SMALL, seed=4).save_pretrained(tmp_path / "run")
    heads = Heads(48, codes, spectra, FINAL_DIM, 0.1, learn_temperature=True)
    heads.save(tmp_path / "run")
    done = import_checkpoint(tmp_path / "run", tmp_path / "out")
    assert (done.codes, done.spectra) == (codes, spectra)
    stored = load_file(tmp_path / "out" / "heads.safetensors")
    assert set(stored) == set(dict(heads.named_parameters()))
    assert all(torch.equal(stored[name], value) for name, value in heads.named_parameters())
    assert import_checkpoint(tmp_path / "run", tmp_path / "out", encoder_only=True).codes == {}
    assert not (tmp_path / "out" / "heads.safetensors").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    with pytest.raises(MertError, match=r"notes\.txt"):
        import_checkpoint(tmp_path / "run", tmp_path / "other")


def test_a_fine_tuned_hubert_is_not_taken_for_an_encoder(tmp_path: Path) -> None:
    MertModel(SMALL, seed=4).save_pretrained(tmp_path)
    tensors = {f"hubert.{name}": value for name, value in load_file(tmp_path / "model.safetensors").items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors | {"lm_head.weight": torch.zeros(32, 48)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(MertError, match=r"unknown: lm_head\.weight"):
        import_checkpoint(tmp_path, tmp_path / "out")
