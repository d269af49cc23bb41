"""HuBERT's pre-training heads as fairseq computes them: cosine similarities to a materialized tensor of candidates."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mert_core.model.heads import CodeHead


class MaterializedHeads(nn.Module):
    """One projection of all codebooks and a table of embeddings each; losses by noise-contrastive estimation.

    For each codebook the true entry and all entries are laid out beside every frame, (entries + 1, frames, final_dim);
    the true one among the others is then taken out with −∞. The loss is the cross-entropy over all entries.

    Args:
        width: of the encoder's states.
        codebooks: of the acoustic teacher.
        entries: of each codebook.
        final_dim: width of one codebook's prediction space.
        temperature: divides the cosine similarities.
    """

    def __init__(self, width: int, codebooks: int, entries: int, final_dim: int, temperature: float) -> None:
        super().__init__()
        self.codebooks, self.entries, self.temperature = codebooks, entries, temperature
        self.final_proj = nn.Linear(width, codebooks * final_dim)
        self.label_embs_concat = nn.Parameter(torch.rand(codebooks * entries, final_dim))

    @torch.no_grad()
    def take(self, head: CodeHead) -> None:
        """Copy the weights of our head."""
        self.final_proj.load_state_dict(head.final_proj.state_dict())
        self.label_embs_concat.copy_(head.codebook_embeddings.flatten(0, 1))

    def forward(self, states: Tensor, codes: Tensor) -> Tensor:
        """Return the cross-entropies, summed over frames and codebooks.

        Args:
            states: (frames, width), of masked frames.
            codes: (frames, codebooks) int64.
        """
        tables = self.label_embs_concat.split(self.entries)
        parts = self.final_proj(states).chunk(self.codebooks, dim=-1)
        loss = states.new_zeros(())
        for projected, table, labels in zip(parts, tables, codes.unbind(1), strict=True):
            logits = self._candidates(projected, table, labels)
            loss = loss + F.cross_entropy(logits.float(), torch.zeros_like(labels), reduction="sum")
        return loss

    def _candidates(self, projected: Tensor, table: Tensor, labels: Tensor) -> Tensor:
        """Return the logits (frames, 1 + entries), the true entry first."""
        positives = table.index_select(0, labels)
        negatives = table.unsqueeze(1).expand(-1, projected.shape[0], -1)
        same = (positives == negatives).all(-1)
        candidates = torch.cat([positives.unsqueeze(0), negatives])
        logits = torch.cosine_similarity(projected.float(), candidates.float(), dim=-1).type_as(projected)
        logits = logits / self.temperature
        logits[1:][same] = -torch.inf
        return logits.transpose(0, 1)
