"""Operations whose k-th file-changing call fails once, or is the last one before kill -9."""
