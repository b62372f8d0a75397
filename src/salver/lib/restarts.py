"""How long to wait before what died is started again. Pure."""

QUICK_DEATH_S = 5.0
"""What dies younger than this makes its successor wait, longer each time."""
MAX_RESTART_DELAY_S = 10.0
FIRST_RESTART_DELAY_S = 0.1


def restart_delay_s(deaths: int) -> float:
    """Return how many seconds to wait after so many quick deaths in a row: nothing the first time, then doubling."""
    if deaths <= 1:
        return 0.0
    delay: float = FIRST_RESTART_DELAY_S * 2 ** min(deaths - 2, 20)
    return min(MAX_RESTART_DELAY_S, delay)
