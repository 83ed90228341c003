"""`gradients`: how far back in a text the gradient of the loss reaches, by model: vanishing and exploding, measured.

For every row the gradient of its own loss with respect to the embedding e_t of each token is taken; a norm's geometric
mean over the rows, against the distance of t from the last token, is a straight line on a logarithmic scale where the
gradient vanishes or explodes exponentially (Bengio et al. 1994; Pascanu et al. 2013, section 2). The same quantity is
there in a transformer and in stacked layers. In one recurrent layer it is dL/dh_t times the derivative of h_t by e_t,
which is of about one size at every step: the slope is that of dL/dh_t.
"""

from finetune.gradients.profile import embedding_gradients, scale_recurrence, summarize
from finetune.gradients.trace import gradients
from finetune.gradients.variants import LINEUP_GAINS, Plan, lineup

__all__ = ["LINEUP_GAINS", "Plan", "embedding_gradients", "gradients", "lineup", "scale_recurrence", "summarize"]
