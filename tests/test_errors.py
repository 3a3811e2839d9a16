"""The tree of errors: exit codes, text, and what survives the way to another process."""

import pickle

import pytest

from netweight.errors import FormatError, NetweightError, OutputError, TargetError, UsageError


@pytest.mark.parametrize(
    ("kind", "exit_code"), [(NetweightError, 1), (TargetError, 1), (UsageError, 2), (OutputError, 2), (FormatError, 3)]
)
def test_every_error_is_ours_and_has_its_exit_code(kind, exit_code):
    error = kind("There are 3.", "Bring 4.")
    assert isinstance(error, NetweightError)
    assert error.exit_code == exit_code
    assert (error.fact, error.remedy, str(error)) == ("There are 3.", "Bring 4.", "There are 3.\nBring 4.")


def test_without_a_remedy_there_is_one_line():
    assert str(FormatError("It is late.")) == "It is late."


def test_an_error_comes_back_whole_from_a_worker_process():
    error = pickle.loads(pickle.dumps(FormatError("There are 3.", "Bring 4.")))
    assert (type(error), error.fact, error.remedy) == (FormatError, "There are 3.", "Bring 4.")


@pytest.mark.parametrize("hostile", ["two\nlines", "\x1b[2Jcleared", "back\u202ewards", "\x00", "\u2028"])
def test_names_from_files_cannot_break_the_line_or_the_terminal(hostile):
    error = UsageError(f"The tensor {hostile} is odd.", f"Rename {hostile}.")
    assert len(str(error).splitlines()) == 2
    assert error.fact.isprintable()
    assert error.remedy.isprintable()


def test_letters_of_all_languages_stay():
    assert UsageError("Gewicht größer als 3 µm, 重量.").fact == "Gewicht größer als 3 µm, 重量."
