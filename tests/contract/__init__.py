"""Promises that every engine, and every transport, keeps alike."""
