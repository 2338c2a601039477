"""What the tests share: servers, fakes, checkpoints, clients. No test is in here."""
