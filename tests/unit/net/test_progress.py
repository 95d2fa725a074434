"""The counter that says that a process gets on."""

from gateway.net.progress import Progress


def test_callbacks_show_before_long_and_the_loop_at_once() -> None:
    cell = memoryview(bytearray(8)).cast("Q")
    progress = Progress(cell)
    for _ in range(8):
        progress.note()
    assert cell[0] == 8
    progress.show()
    assert cell[0] == 9


def test_a_process_that_moves_goes_on_counting() -> None:
    cell = memoryview(bytearray(8)).cast("Q")
    progress = Progress(memoryview(bytearray(8)).cast("Q"))
    progress.show()
    progress.move_to(cell)
    progress.show()
    assert cell[0] == 2
