"""The work itself, the same for every system; imports neither Salver nor any other of them."""

from pydantic import BaseModel

NOOP = b"ok"
PAYLOAD = bytes(range(256)) * 40
CHUNKS = tuple(f"data: token {number}\n\n".encode() for number in range(50))
QUESTION = {"name": "house", "rooms": [{"area": 12.5, "windows": 2}, {"area": 30.0, "windows": 4}], "tags": ["a", "b"]}
ANSWER = {"name": "house", "price": 48500.0, "windows": 6}


class Room(BaseModel):
    area: float
    windows: int


class Question(BaseModel):
    name: str
    rooms: list[Room]
    tags: list[str] = []


class Answer(BaseModel):
    name: str
    price: float
    windows: int


def answer(question: Question) -> Answer:
    """Return the price of a house, which is what the pydantic workloads compute."""
    price = sum(1000.0 * room.area + 1000.0 * room.windows for room in question.rooms)
    return Answer(name=question.name, price=price, windows=sum(room.windows for room in question.rooms))
