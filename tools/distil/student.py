"""The student network and the losses that compare it with the teacher."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from models.compact import CompactNet
from tools.distil.examples import FEATURES, TAGS, Examples

DROPOUT = 0.1  # before the hidden layer


class Student(nn.Module):
    """The compact network with projections to the teacher's features, which only the training needs."""

    def __init__(self, mean_logits: torch.Tensor):
        """``mean_logits``, (527,), initialise the bias, so that training starts from the mean answer."""
        super().__init__()
        self.network = CompactNet(TAGS, multilabel=True)
        for layer in self.network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        nn.init.normal_(self.network.fc_audioset.weight, std=0.01)
        self.network.fc_audioset.bias.data.copy_(mean_logits)
        self.clip_projection = nn.Linear(self.network.fc1.out_features, FEATURES)
        self.step_projection = nn.Linear(self.network.fc1.in_features, FEATURES)

    def forward(self, logmel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(batch, 1, frames, 64) -> logits (batch, 527), features (batch, 384), step features (batch, steps, 384)."""
        steps = self.network.framewise_features(logmel)
        pooled = F.dropout(steps.mean(dim=2) + steps.amax(dim=2), DROPOUT, self.training)
        hidden = F.relu(self.network.fc1(pooled))
        logits = self.network.fc_audioset(hidden)
        return logits, self.clip_projection(hidden), self.step_projection(steps.transpose(1, 2))


class Targets:
    """Standardises the teacher's outputs by the first examples, and compares the student's with them."""

    def __init__(self, examples: Examples, count: int = 4_096):
        """``count``: number of examples from which mean and standard deviation are taken."""
        _, logits, features = examples.batch(np.arange(count))
        clip = features.mean(dim=1)
        self.logit_mean, self.logit_std = logits.mean(dim=0), logits.std(dim=0) + 1e-2
        self.clip_mean, self.clip_std = clip.mean(dim=0), clip.std(dim=0) + 1e-3
        self.step_mean, self.step_std = features.mean(dim=(0, 1)), features.std(dim=(0, 1)) + 1e-3

    def losses(
        self, output: tuple[torch.Tensor, ...], logits: torch.Tensor, features: torch.Tensor, weights: torch.Tensor
    ) -> torch.Tensor:
        """Return the losses of clip features, step features, logits and tags, (4,); each is 0 at the teacher's output.

        Args:
            output: What the student returns.
            logits: The teacher's logits, (batch, 527).
            features: The teacher's features, (batch, steps, 384).
            weights: Weights of the tags in the last two losses, (527,).
        """
        student_logits, clip, steps = output
        clip_loss = 1 - F.cosine_similarity(clip, (features.mean(dim=1) - self.clip_mean) / self.clip_std).mean()
        step_loss = 1 - F.cosine_similarity(steps, (features - self.step_mean) / self.step_std, dim=2).mean()
        logit_loss = (((student_logits - logits) / self.logit_std).square() * weights).mean() / weights.mean()
        tags = torch.sigmoid(logits)
        entropies = (F.binary_cross_entropy_with_logits(x, tags, reduction="none") for x in (student_logits, logits))
        student_entropy, min_entropy = ((entropy * weights).sum(dim=1).mean() for entropy in entropies)
        return torch.stack([clip_loss, step_loss, logit_loss, student_entropy - min_entropy])
