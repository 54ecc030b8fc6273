"""Operations whose k-th file-changing call fails, or is the last one before kill -9."""
