"""Names of the functions in the source of Triton kernels."""

FORWARD = "attention_forward"
DELTA = "attention_delta"
QUERIES = "attention_backward_queries"
KEYS = "attention_backward_keys"


def elements(number: int) -> str:
    """The function for the contributions, one by one, to an element of a captured tensor."""
    return f"attention_backward_elements{number}"
