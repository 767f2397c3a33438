"""The public class DNAGPT: the network and its method `generate`."""

from dnagpt_fast.model import generation
from dnagpt_fast.model.network import Network


class DNAGPT(Network):
    """The published model. Constructor arguments are the official ones; `from_name` makes the published shapes.

    A call returns logits, or with `number_loc` the pair (regressed numbers, logits): see `Network.forward`.

    >>> model = DNAGPT.from_name("dna_gpt0.1b_m", vocab_size=19_564).eval()
    """

    # A function whose first parameter is the model is the method.
    generate = generation.generate
