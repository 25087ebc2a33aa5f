from harness.places import machine


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "_LIMITS", ())
    whole = machine.memory_bytes()
    for text, expected in (("1000000\n", 1000000), ("max\n", whole), (str(2**63), whole)):
        (tmp_path / "limit").write_text(text)
        monkeypatch.setattr(machine, "_LIMITS", (str(tmp_path / "limit"), "/nowhere"))
        assert machine.memory_bytes() == expected
