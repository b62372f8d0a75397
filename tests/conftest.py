"""What every test runs under."""

from hypothesis import settings

# A slow machine is no bug: examples have no deadline of their own, pytest's timeout bounds the whole test.
settings.register_profile("salver", deadline=None)
settings.load_profile("salver")
