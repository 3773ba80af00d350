"""What the simulated users ask: 240 different questions of the kind an assistant gets."""

from itertools import product

_THINGS = (
    "a volcano", "photosynthesis", "inflation", "a black hole", "the water cycle", "gravity", "a vaccine",
    "the moon's phases", "an earthquake", "a rainbow", "electricity", "a glacier", "the immune system",
    "a computer virus", "sourdough bread", "a tsunami", "the stock market", "a hurricane", "DNA", "a battery",
    "the ozone layer", "a democracy", "a telescope", "the Great Wall of China", "a comet", "jazz music",
    "a coral reef", "the Roman Empire", "an algorithm", "a vitamin", "the Renaissance", "a mortgage",
    "a haiku", "the heart", "an eclipse", "a desert", "chess", "a satellite", "yeast", "a constitution",
    "the internet", "a fossil", "tea", "a bridge", "the nervous system", "insurance", "a dictionary",
    "the Sahara", "a magnet", "a symphony", "the printing press", "a budget", "honey", "a rainforest",
    "a microscope", "the Olympic Games", "a tornado", "a password", "cheese", "a sonnet",
)  # fmt: skip
_FORMS = ("What is {}?", "Why does {} matter?", "How would you explain {} to a child?", "Tell me one fact about {}.")

QUESTIONS = tuple(form.format(thing) for thing, form in product(_THINGS, _FORMS))
