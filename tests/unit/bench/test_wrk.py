"""What wrk prints becomes figures, or an error that says what went wrong."""

import pytest

from bench.wrk import LoadFailedError, parse

GOOD = """Running 4s test @ http://127.0.0.1:8000/
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.19ms  312.40us  13.47ms   92.41%
    Req/Sec    53.91k     2.61k   57.82k    80.00%
  Latency Distribution
     50%    1.12ms
     75%  980.00us
     90%    1.43ms
     99%    2.05s
  214503 requests in 4.00s, 28.64MB read
Requests/sec:  53617.32
Transfer/sec:      7.16MB
"""


def test_rate_and_percentiles_are_read_in_their_units() -> None:
    sample = parse(GOOD)

    assert (sample.rate, sample.p50_us, sample.p99_us) == pytest.approx((53617.32, 1120.0, 2_050_000.0))


@pytest.mark.parametrize(
    "line", ["  Non-2xx or 3xx responses: 3", "  Socket errors: connect 0, read 1, write 0, timeout 0"]
)
def test_one_failed_request_spoils_the_figure(line: str) -> None:
    with pytest.raises(LoadFailedError, match="failed under load"):
        parse(GOOD.replace("Requests/sec", f"{line}\nRequests/sec"))


def test_answers_that_are_too_short_spoil_the_figure() -> None:
    mean_bytes = 28.64 * 1024**2 / 214503

    assert parse(GOOD, least_bytes=int(mean_bytes)).rate
    with pytest.raises(LoadFailedError, match="140 bytes on average, not 150"):
        parse(GOOD, least_bytes=150)


@pytest.mark.parametrize("missing", ["Requests/sec:", "requests in", "99%"])
def test_a_figure_that_is_not_there_is_no_zero(missing: str) -> None:
    with pytest.raises(LoadFailedError, match="wrk printed"):
        parse(GOOD.replace(missing, "?"))


def test_no_answer_at_all_is_a_failure() -> None:
    with pytest.raises(LoadFailedError, match="unexpected"):
        parse(GOOD.replace("214503 requests", "0 requests"))
