"""Where manifests come from: AudioSet's and VGGSound's CSVs, folders, and lists of files."""
