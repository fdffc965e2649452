"""Where a clip's video lies, and how it becomes a local file that a decoder may open.

place     what a video's URL says: which file or archive, which member
remote    a file behind a URL, read by position, through failures of the network
archives  tar and zip files, read from front to back
fetch     the videos of some clips, one after another, each in a scratch file for a while
"""
