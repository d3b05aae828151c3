"""Finds and clicks what the sidebar shows, with nothing but the mouse.

Where a button is drawn is not known outside Blender, and layouts change with every option that is added. So the mouse is moved down the
sidebar, and at each step Blender is asked what it has under the mouse: the operator that "Copy Python Command" would copy, or the
property it shows. What is found that way is visible, in reach, and exactly what a click would hit; no place, colour or picture is assumed.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .blender_window import BlenderWindow
from .screen import WindowTestError

ROW_STEP, MOST_SCROLLS = 7, 6
# Pictures are no buttons; below the last panel is nothing at all.
MOST_BLANK = 320
# Of the sidebar's width, past which the tabs stand.
RIGHT = 0.81
COLUMNS = (0.45, RIGHT, 0.72, 0.2)
TAB_INSET = 12


@dataclass(frozen=True)
class Button:
    """Something under the mouse, in pixels of the screen from the top left."""

    x: float
    y: float
    operator: str
    property: str

    def fits(self, name: str) -> bool:
        """Whether it is the operator, as "focus_face.reconstruct", or the property of that name."""
        return self.operator.startswith(f"bpy.ops.{name}(") or (bool(self.property) and self.property.rsplit(".")[-1] == name)


class Sidebar:
    """The 3D viewport's sidebar."""

    def __init__(self, window: BlenderWindow) -> None:
        self.window = window
        self.screen = window.screen
        self._places: dict[str, Button] = {}

    def open(self, tab: str) -> bool:
        """Opens it with N over the viewport and clicks its tab.

        Returns:
            Whether the tab was reached by clicking; False where it had to be turned to from inside, as too many tabs hide it.

        Raises:
            WindowTestError: there is no such tab.
        """
        if self._bounds()[2] < 2:
            self.rest()
            self.screen.key("n")
            self.window.wait_for("the sidebar opens", lambda: self._bounds()[2] > 2, 20)
        return self._click_tab(tab) or self._turn_from_inside(tab)

    def rest(self) -> None:
        """Moves the mouse away from everything, so that no button is lit and no tooltip shows."""
        left, top, width, height = self._rectangle(self.window.ask("layout")["regions"]["WINDOW"])
        self.screen.move(left + 0.3 * width, top + 0.85 * height)
        time.sleep(0.3)

    def find(self, name: str) -> Button:
        """The operator's or property's button, scrolled to where needed; the middle of its row.

        Raises:
            WindowTestError: nowhere in the sidebar.
        """
        for turn in range(MOST_SCROLLS):
            if button := self.look_for(name):
                return button
            self._scroll(8 if turn else -60)
        raise WindowTestError(f"the sidebar shows no button for {name}")

    def look_for(self, name: str, columns: Sequence[float] = COLUMNS) -> Button | None:
        """The same without scrolling, in some columns; None where it is not shown there."""
        # Mostly it is still where it was.
        if name in self._places and (button := self._look_at(self._places[name].x, self._places[name].y)) and button.fits(name):
            return button
        for column in columns:
            if rows := [button for button in self._look_down(column, name) if button.fits(name)]:
                self._places[name] = rows[len(rows) // 2]
                return self._places[name]
        return None

    def list_buttons(self, column: float = COLUMNS[0]) -> list[Button]:
        """Everything in one column, top down, as it is scrolled now."""
        found: list[Button] = []
        for button in self._look_down(column):
            if not found or (button.operator, button.property) != (found[-1].operator, found[-1].property):
                found.append(button)
        return found

    def click(self, name: str, times: int = 1) -> float:
        """Clicks that button; `time.monotonic()` of the click."""
        button = self.find(name)
        return self.screen.click(button.x, button.y, times)

    def write(self, name: str, text: str) -> None:
        """Writes into that property's field as one would: double click, all of it selected, the new text, Return."""
        button = self.find(name)
        self.screen.click(button.x, button.y, 2)
        time.sleep(0.4)
        # A virtual screen's keyboard has no letters beyond ASCII: the text is pasted.
        self.window.ask("copy", text=text)
        self.screen.key("ctrl+a", "ctrl+v", "Return")

    def _look_down(self, column: float, name: str = "") -> list[Button]:
        """What lies under the mouse at each step down; with a name no further than the end of that button."""
        left, top, width, height = self._rectangle(self._bounds())
        seen: list[Button] = []
        for y in range(round(top) + 4, round(top + height) - 4, ROW_STEP):
            button = self._look_at(left + column * width, y)
            if name and seen and seen[-1].fits(name) and not (button and button.fits(name)):
                break
            if button:
                seen.append(button)
            elif y - (seen[-1].y if seen else top) > MOST_BLANK:
                break
        return seen

    def _look_at(self, x: float, y: float) -> Button | None:
        """What Blender has under the mouse there, once it has seen the mouse there."""
        self.screen.move(x, y)
        window = self.window.ask("layout")["window"]
        place = x - window[0], self.screen.height - window[1] - y
        under = self.window.wait_for("Blender sees the mouse move", lambda: self._seen_at(place), 20, 0.01)
        if not (under["operator"] or under["property"]):
            return None
        return Button(x, y, under["operator"], under["property"])

    def _seen_at(self, place: tuple[float, float]) -> dict | None:
        under = self.window.ask("hovered")
        is_there = all(abs(seen - wanted) < ROW_STEP / 2 for seen, wanted in zip(under["mouse"], place, strict=True))
        return under if is_there else None

    def _scroll(self, notches: int) -> None:
        left, top, width, _ = self._rectangle(self._bounds())
        # Over a panel's header: where the sidebar shows no panel, the wheel would turn the view behind it.
        self.screen.move(left + 0.45 * width, top + 15)
        self.screen.wheel(notches)
        time.sleep(0.5)

    def _click_tab(self, tab: str) -> bool:
        left, top, width, height = self._rectangle(self._bounds())
        for y in range(round(top) + 20, round(top + height), 25):
            if self.window.ask("layout")["tab"] == tab:
                return True
            self.screen.click(left + width - TAB_INSET, y)
            time.sleep(0.3)
        return self.window.ask("layout")["tab"] == tab

    def _turn_from_inside(self, tab: str) -> bool:
        if self.window.ask("show_tab", category=tab) != tab:
            raise WindowTestError(f"the sidebar has no tab {tab}")
        return False

    def _bounds(self) -> list[int]:
        """Of the sidebar in Blender's pixels: x, y from the bottom, width, height."""
        return self.window.ask("layout")["regions"]["UI"]

    def _rectangle(self, region: list[int]) -> tuple[float, float, float, float]:
        """Left, top, width, height on the screen: Blender counts from the bottom of its window."""
        x, y, width, height = region
        window = self.window.ask("layout")["window"]
        return window[0] + x, self.screen.height - window[1] - y - height, width, height
