"""What the histories assert is shown as in a test."""

import pytest

pytest.register_assert_rewrite("tests.properties.ledger_histories")
