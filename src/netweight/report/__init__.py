"""Stage 9, the report: one HTML page about a file, with its pictures inside.

facts    everything the page tells, measured once
figures  facts to pictures          chart    axes, lines and dots in SVG
tables   facts to bars and tables   markup   elements whose text is escaped by construction
page     `report`                   style    light and dark, phone and desk
"""

from netweight.report.page import report

__all__ = ["report"]
