"""Tests of local testing mode."""
