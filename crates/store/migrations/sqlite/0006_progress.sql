-- How far the last attempt of a task said that it is: a JSON array of what is done, of how much in all,
-- a word for people, when it was said, and when an event last told of it.
ALTER TABLE tasks ADD COLUMN progress TEXT;
