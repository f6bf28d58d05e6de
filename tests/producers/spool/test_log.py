"""The spool's files: what was appended comes back in order, whatever was torn, damaged or released."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from akbypass.errors import ServiceError
from akbypass.producers.spool.log import SpoolFullError, SpoolLog, SpoolReader
from akbypass.producers.spool.record import Record

SEGMENT_BYTES = 256


def record(number: int) -> Record:
    """A record of about 60 bytes whose every field depends on its number."""
    key, value = (None, None) if number % 5 == 0 else (b"k%d" % number, b"v" * (number % 40))
    return Record(number, f"topic-{number % 3}", number % 4, key, value, [("run_id", b"r")] if number % 2 else [])


def filled(directory: Path, numbers: range) -> SpoolLog:
    """A log with these records."""
    log = SpoolLog(directory, SEGMENT_BYTES)
    for number in numbers:
        log.append(record(number))
    return log


def rest(log: SpoolLog) -> Iterator[Record]:
    """All that a log holds."""
    reader = SpoolReader(log)
    while (found := reader.next()) is not None:
        yield found
    reader.close()


def test_records_come_back_as_they_went_in(tmp_path: Path) -> None:
    """Topic, partition, key, value and headers, none and empty kept apart, in order over several segments."""
    log = filled(tmp_path, range(1, 40))
    assert list(rest(log)) == [record(n) for n in range(1, 40)]
    assert len(list(tmp_path.glob("*.spool"))) > 5
    assert log.bytes == sum(record(n).size() for n in range(1, 40))
    log.close()


def test_a_reader_follows_a_log_that_grows(tmp_path: Path) -> None:
    """None means nothing yet; what is appended later is read on from there."""
    log = SpoolLog(tmp_path, SEGMENT_BYTES)
    reader = SpoolReader(log)
    for number in range(1, 30):
        assert reader.next() is None
        log.append(record(number))
        assert reader.next() == record(number)
    reader.rewind()
    assert reader.next() == record(1)


def test_released_segments_are_deleted_whole(tmp_path: Path) -> None:
    """A segment stays while one of its records is not released; with the last one everything is gone, and it goes on."""
    log = filled(tmp_path, range(1, 40))
    for number in range(1, 40):
        log.release(number)
        left = [r.number for r in rest(log)]
        assert left[-1] == 39 and left[0] <= number
        assert len(left) - (40 - number) < 10  # no more than the segment that it lies in
    log.release(40)
    assert list(tmp_path.glob("*.spool")) == [] and log.bytes == 0
    log.append(record(57))
    assert [r.number for r in rest(log)] == [57]
    log.release(58)
    log.close()
    assert not tmp_path.exists()


def test_a_torn_record_is_cut_off_at_every_byte(tmp_path: Path) -> None:
    """However much of the last record a killed process had written, all before it is there, and appending goes on."""
    size = record(9).size()
    for cut in range(1, size + 1):
        place = tmp_path / str(cut)
        filled(place, range(1, 10)).close()
        newest = sorted(place.glob("*.spool"))[-1]
        newest.write_bytes(newest.read_bytes()[:-cut])
        again = SpoolLog(place, SEGMENT_BYTES)
        assert (again.first, again.last) == (1, 8)
        again.append(record(9))
        assert list(rest(again)) == [record(n) for n in range(1, 10)]
        again.close()


def test_damage_ends_its_own_segment_only(tmp_path: Path) -> None:
    """A changed byte is found by the check; the rest of that file is given up and said so, the next files are read."""
    filled(tmp_path, range(1, 40)).close()
    first = min(tmp_path.glob("*.spool"))
    data = bytearray(first.read_bytes())
    data[record(1).size() + 20] ^= 1  # in the second record
    first.write_bytes(data)
    log = SpoolLog(tmp_path, SEGMENT_BYTES)
    reader, found = SpoolReader(log), []
    while (one := reader.next()) is not None:
        found.append(one.number)
    second = int(sorted(tmp_path.glob("*.spool"))[1].stem)
    assert found == [1, *range(second, 40)] and reader.damaged == 1


def test_a_directory_has_one_owner(tmp_path: Path) -> None:
    """A second process is refused, and let in once the first has closed."""
    log = filled(tmp_path, range(1, 3))
    with pytest.raises(ServiceError, match="in use"):
        SpoolLog(tmp_path, SEGMENT_BYTES)
    log.close()
    assert SpoolLog(tmp_path, SEGMENT_BYTES).last == 2


def test_a_full_disk_leaves_whole_records(tmp_path: Path) -> None:
    """What does not fit is refused whole, what was there stays readable, and smaller records still fit."""
    log = SpoolLog(tmp_path, 1 << 20)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, hard))  # the system then writes short, or refuses
    try:
        log.append(record(1))
        with pytest.raises(SpoolFullError):
            log.append(Record(2, "t", 0, None, b"x" * 2_000, []))
        log.append(record(3))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(rest(log)) == [record(1), record(3)]
