"""The pre-flight a hospital runs before anything leaves: tables, images, labels, time and disk. It trains nothing."""
