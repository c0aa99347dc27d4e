"""Clean prose that benchmarks read: it repeats no sentence, so nothing of it is read once for twice."""

from __future__ import annotations

__all__ = ["PROSE"]

PROSE = """\
The library opens at nine and closes at six on weekdays. Visitors who want to use the reading room \
should bring a card and leave their bags in the hall. In the spring of last year the town council \
decided to repair the old bridge over the river, which had been closed to traffic since the flood. Most \
people agreed that it was the right thing to do. The work took longer than planned, because the \
engineers found cracks in two of the pillars. They had to order new stone from a quarry in the north, \
and the delivery was late. When the bridge was finally opened again, there was a small party with music \
and cake. The mayor gave a speech that nobody remembers, and the children were allowed to cross first. \
Since then the shops on the other side have had more customers. A bakery that was about to close has \
hired two people.

The museum next to the station has changed as well. It used to show little more than old tools and a \
stuffed owl. A retired teacher spent three winters sorting the letters and maps that lay in the cellar. \
She found out that the river once ran through what is now the market square. Her drawings hang in the \
entrance, with a lamp above each of them. On Sundays there is a tour for families. It ends in the yard, \
where one can grind flour with a stone mill.

Our choir meets every Thursday in the school. We sing folk songs, a few hymns and sometimes a piece from \
a film. New voices are welcome, and no one has to read music. In June we travel to the coast for a \
weekend. The train takes four hours, so somebody always brings a guitar. Last summer it rained on both \
days, but the hall was full. A newspaper wrote that the tenors were late and that it did not matter.

The recipe for the soup is simple. Cut two onions and a carrot into small pieces. Let them turn soft in \
butter before you add the beans. Pour in enough water to cover everything and wait for half an hour. \
Salt comes last, because the beans would stay hard otherwise. A slice of dark bread goes well with it. \
What is left tastes even better on the next day.
"""
