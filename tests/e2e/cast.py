"""Who takes part in the browser tests: each guest has a room of the same name."""

ROOMS = (
    "ada",
    "ben",
    "cleo",
    "dora",
    "emil",
    "fay",
    "gus",
    "hana",
    "ida",
    "jon",
    "kim",
    "leo",
    "mia",
    "nils",
    "ora",
    "pia",
    "quin",
    "nora",
    "omar",
    "uma",
    "rosa",
    "sven",
    "tess",
    "vera",
    "wanda",
    "xenia",
    "yara",
)
STAFF = ("sam", "rita")
LONG = 230
"""Messages in the room of the guest "long"."""
