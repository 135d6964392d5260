"""One batch on many machines: who hands out its rows, who paints them, and Ray, which starts and watches the painters.

The truth is in the output folder: its files and journals alone say what is done. Ray hands out rows and nothing else.
"""
