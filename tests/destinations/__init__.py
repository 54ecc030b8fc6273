"""Tests of the kinds of destinations, against real servers on this machine."""
