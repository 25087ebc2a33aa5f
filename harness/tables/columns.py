"""Make the columns and the schema of a table, and the columns that several tables have."""

import pyarrow as pa


def column(
    name: str, kind: pa.DataType, unit: str, description: str, *, nullable: bool = False
) -> pa.Field:
    """Make a column. Only a nullable column may have rows without a value."""
    metadata = {"unit": unit, "description": description}
    return pa.field(name, kind, nullable=nullable, metadata=metadata)


def table_schema(table: str, version: int, columns: list[pa.Field]) -> pa.Schema:
    """Make the schema of a table. The version grows with each change of the columns."""
    return pa.schema(columns, {"schema_version": str(version), "table": table})


BATCH_SIZE = column("batch_size", pa.int64(), "images", "largest number of images per test batch")
BATCHES = column(
    "batches",
    pa.int64(),
    "batches",
    "largest number of test batches per task; null means the whole test set",
    nullable=True,
)
