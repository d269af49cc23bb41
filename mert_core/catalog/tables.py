"""The catalog's tables: records, edges, files and scores. Types that SQLite and Postgres share."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Float, ForeignKey, Integer, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

DIGEST = String(64)  # SHA-256 in hexadecimal


class Base(DeclarativeBase):
    """Base of the catalog's tables."""


class RecordRow(Base):
    """What one stage once made. Immutable: its id is the hash of all the rest."""

    __tablename__ = "records"

    id: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    stage: Mapped[str] = mapped_column(String(64), index=True)
    kind: Mapped[str] = mapped_column(String(64), index=True)
    run: Mapped[str | None] = mapped_column(String(128), index=True)
    params: Mapped[dict[str, Any]] = mapped_column(JSON)
    facts: Mapped[dict[str, Any]] = mapped_column(JSON)

    inputs: Mapped[list[EdgeRow]] = relationship(cascade="all, delete-orphan", order_by="EdgeRow.role")
    files: Mapped[list[FileRow]] = relationship(cascade="all, delete-orphan", order_by="FileRow.path")
    scores: Mapped[list[ScoreRow]] = relationship(
        cascade="all, delete-orphan", order_by="ScoreRow.task", back_populates="record"
    )


class EdgeRow(Base):
    """One input of a record. The parent may be a record that this catalog has not seen."""

    __tablename__ = "edges"

    child_id: Mapped[str] = mapped_column(DIGEST, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(String(160), primary_key=True)
    parent_id: Mapped[str] = mapped_column(DIGEST, index=True)


class FileRow(Base):
    """One file of a record, by path within the record's folder."""

    __tablename__ = "files"

    record_id: Mapped[str] = mapped_column(DIGEST, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True)
    path: Mapped[str] = mapped_column(String(1024), primary_key=True)
    sha256: Mapped[str] = mapped_column(DIGEST, index=True)


class ScoreRow(Base):
    """A task's main score with its 95 % interval. Its id is the hash of the record's id and the task.

    ``input`` is the hidden state that the probe heard, or ``weighted``.
    """

    __tablename__ = "scores"

    id: Mapped[str] = mapped_column(DIGEST, primary_key=True)
    record_id: Mapped[str] = mapped_column(DIGEST, ForeignKey("records.id", ondelete="CASCADE"), index=True)
    run: Mapped[str] = mapped_column(String(128), index=True)
    task: Mapped[str] = mapped_column(String(64), index=True)
    metric: Mapped[str] = mapped_column(String(64))
    value: Mapped[float] = mapped_column(Float(53))
    low: Mapped[float] = mapped_column(Float(53))
    high: Mapped[float] = mapped_column(Float(53))
    tracks: Mapped[int] = mapped_column("items", Integer)  # columns keep the names they had in catalogs that exist
    input: Mapped[str] = mapped_column("layer", Text)
    rate: Mapped[float | None] = mapped_column(Float(53))
    validation: Mapped[float | None] = mapped_column(Float(53))

    record: Mapped[RecordRow] = relationship(back_populates="scores")
