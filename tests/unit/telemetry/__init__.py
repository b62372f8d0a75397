"""Tests of salver.telemetry."""
