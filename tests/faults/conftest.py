"""What the tests of faults have in common asserts too, and says as much where it fails."""

import pytest

pytest.register_assert_rewrite("tests.faults.storm", "tests.faults.servers")
