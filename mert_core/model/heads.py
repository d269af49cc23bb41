"""Pre-training heads: a teacher's codes by cosine similarity to a table per codebook, its spectrum by regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.model.checkpoint import HEADS_NAME, copy_parameters, read_safetensors, save_tensors

MAX_SCALE = 100.0
"""Largest factor that a learned temperature may put on the cosines, as in MERT's code."""


class CodeHead(nn.Module):
    """Predict the codes of one teacher: each codebook has a projection and a table of embeddings.

    Args:
        width: width of the encoder's states.
        codebooks: number of the teacher's codebooks.
        entries: entries per codebook.
        final_dim: width of one codebook's prediction space (64 for 95M, 128 for 330M).
        temperature: divides the cosine similarities (0.1 as published).
        learn_temperature: learn one temperature per codebook, beginning with ``temperature``; an option of MERT's code
            that no release uses. It is kept as log(1/τ), and 1/τ stays below 100.
    """

    def __init__(
        self,
        width: int,
        codebooks: int,
        entries: int,
        final_dim: int,
        temperature: float,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        self.codebooks, self.entries, self.final_dim, self.temperature = codebooks, entries, final_dim, temperature
        self.final_proj = nn.Linear(width, codebooks * final_dim)
        # The published U(0, 1) starts all entries nearly parallel (cosine 0.75); about zero they start apart.
        self.codebook_embeddings = nn.Parameter(torch.rand(codebooks, entries, final_dim) * 2 - 1)
        self.log_scales: nn.Parameter | None = None
        if learn_temperature:
            self.log_scales = nn.Parameter(torch.full((codebooks,), math.log(1 / temperature)))

    def forward(self, states: Tensor, codebook_ids: Sequence[int] | None = None) -> Tensor:
        """Map (positions, width) to logits (codebooks, positions, entries), in fp32.

        Both sides are normalized first, so that one batched GEMM gives all cosine similarities.

        Args:
            states: (positions, width).
            codebook_ids: codebooks to predict; nothing is computed for others. None predicts all.
        """
        # Project the states, by the rows of the projection that belong to the codebooks asked for.
        if codebook_ids is None or len(codebook_ids) == self.codebooks:
            projected, tables = self.final_proj(states), self.codebook_embeddings.float()
            codebook_ids = range(self.codebooks)
        else:
            index = torch.as_tensor(codebook_ids, device=states.device)
            weight = self.final_proj.weight.unflatten(0, (self.codebooks, -1))[index].flatten(0, 1)
            bias = self.final_proj.bias.unflatten(0, (self.codebooks, -1))[index].flatten()
            projected, tables = F.linear(states, weight, bias), self.codebook_embeddings[index].float()
        queries = projected.unflatten(-1, (len(codebook_ids), self.final_dim)).transpose(0, 1)
        queries = F.normalize(queries.float(), dim=-1)
        tables = F.normalize(tables, dim=-1)
        with torch.autocast(states.device.type, enabled=False):
            # the temperature divides the short side, not the logits: one pass over them less, forward and backward
            if self.log_scales is None:
                queries = queries / self.temperature
            else:
                queries = queries * self.log_scales.float().exp().clamp(max=MAX_SCALE)[list(codebook_ids), None, None]
            return torch.bmm(queries, tables.transpose(1, 2))


class Heads(nn.Module):
    """A head for every teacher that a run predicts.

    Args:
        width: width of the encoder's states.
        codes: number of codebooks and of entries per codebook of each teacher of codes, by its name.
        spectra: bins of each teacher of spectra, by its name.
        final_dim: width of one codebook's prediction space, as in ``CodeHead``; so are ``temperature`` and
            ``learn_temperature``.
        temperature: divisor of the cosine similarities.
        seed: decides the initial weights; torch's global generator is left as it was.
        learn_temperature: whether each codebook learns its temperature.
    """

    def __init__(
        self,
        width: int,
        codes: Mapping[str, tuple[int, int]],
        spectra: Mapping[str, int],
        final_dim: int,
        temperature: float,
        seed: int = 0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.codes = nn.ModuleDict(
                {
                    name: CodeHead(width, codebooks, entries, final_dim, temperature, learn_temperature)
                    for name, (codebooks, entries) in codes.items()
                }
            )
            self.spectra = nn.ModuleDict({name: nn.Linear(width, bins) for name, bins in spectra.items()})

    def save(self, folder: Path) -> None:
        """Write ``heads.safetensors`` into a folder."""
        save_tensors(dict(self.named_parameters()), folder / HEADS_NAME)

    def load(self, folder: Path) -> None:
        """Copy the weights of a folder's ``heads.safetensors``.

        Raises:
            MertError: it is damaged or of another teacher; every tensor that does not fit is named.
        """
        copy_parameters(self, read_safetensors(folder / HEADS_NAME), str(folder / HEADS_NAME))
