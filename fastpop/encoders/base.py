"""The contract that every encoder keeps."""

from typing import ClassVar, Literal

from torch import Tensor, nn


class Encoder(nn.Module):
    """Turns users or histories into query vectors.

    `reads` says which batches it trains on: "events" (the user alone) or "sequences" (histories).
    `causal` queries at position l may depend on items 0..l only, so that every position of a
    window is a training row.
    """

    reads: ClassVar[Literal["events", "sequences"]]

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        """Queries for training: [B, D] from events, [B, L, D] from sequences.

        history_BL holds item ids, oldest first, and -1 after the end; item_VD is the decoder's
        table, for encoders that read items with it. Positions after the end are arbitrary.
        """
        raise NotImplementedError

    def last(self, user_C: Tensor, history_CL: Tensor, item_VD: Tensor) -> Tensor:
        """Queries for serving [C, D]: what would be used to predict each case's next item."""
        query_CLD = self(user_C, history_CL, item_VD)
        at_C = (history_CL >= 0).sum(1).clamp(min=1) - 1
        # gather, not query_CLD[arange(C), at_C]: an exported graph would hold this C for ever.
        return query_CLD.gather(1, at_C[:, None, None].expand(-1, 1, query_CLD.shape[2]))[:, 0]

    def tables(self) -> list[nn.Parameter]:
        """Parameters with one row a user or an item: they may get sparse row gradients."""
        return []
