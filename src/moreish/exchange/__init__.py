"""Models that go to other programs, or come from them."""
